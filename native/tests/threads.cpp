// The threads that share out rows: every row is done once, whoever calls and from where.

#include "../threads.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

namespace {

using labelsmooth::share_out;

struct Rows {
    std::vector<std::atomic<int>> done;
    std::function<void(int64_t)> more;

    explicit Rows(int64_t rows) : done(rows) {}
    static void body(void* context, int64_t begin, int64_t end) {
        Rows& rows = *static_cast<Rows*>(context);
        for (int64_t i = begin; i < end; ++i) {
            rows.done[i].fetch_add(1, std::memory_order_relaxed);
            if (rows.more) rows.more(i);
        }
    }
    bool once() const {
        for (const auto& times : done)
            if (times.load() != 1) return false;
        return true;
    }
};

bool shared(int64_t rows, int64_t block, int threads, std::function<void(int64_t)> more = nullptr) {
    Rows all(rows);
    all.more = std::move(more);
    share_out(rows, block, threads, &Rows::body, &all);
    return all.once();
}

void expect(bool right, const char* what) {
    if (right) return;
    std::printf("not so: %s\n", what);
    std::exit(1);
}

bool in_child(bool (*f)()) {
    const pid_t child = fork();
    if (child == 0) _exit(f() ? 0 : 1);
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool several_sizes() {
    for (const int64_t rows : {0, 1, 2, 7, 64, 1000})
        for (const int64_t block : {1, 3, 64, 2000})
            for (const int threads : {1, 2, 5, 3, 8})
                if (!shared(rows, block, threads)) return false;
    return true;
}

// What a body writes is there for the caller, without a lock of its own.
bool seen() {
    std::vector<int> plain(5000);
    if (!shared(5000, 1, 4, [&](int64_t i) { plain[i] = int(i); })) return false;
    for (int i = 0; i < 5000; ++i)
        if (plain[i] != i) return false;
    return true;
}

bool many_callers() {
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int t = 0; t < 6; ++t)
        callers.emplace_back([&, t] {
            for (int turn = 0; turn < 200; ++turn) wrong += !shared(50 + t, 1 + turn % 4, 2 + turn % 3);
        });
    for (std::thread& caller : callers) caller.join();
    return wrong == 0;
}

bool nested() {
    std::atomic<int> wrong{0};
    return shared(20, 1, 3, [&](int64_t) { wrong += !shared(30, 2, 3); }) && wrong == 0;
}

}  // namespace

int main() {
    expect(several_sizes(), "every row is done once");
    expect(seen(), "the caller sees what was written");
    expect(many_callers(), "many callers at once");
    expect(nested(), "a call within a call");
    expect(in_child(several_sizes), "a fork after the threads were used");
    expect(in_child([] { return in_child(several_sizes) && several_sizes(); }), "a fork of a fork");
#if !defined(TSAN)  // which cannot follow a fork of several threads
    std::atomic<bool> stop{false};  // while another thread of the parent is at work
    std::thread busy([&] {
        while (!stop) shared(100, 1, 3);
    });
    for (int turn = 0; turn < 20; ++turn) expect(in_child(many_callers), "a fork while rows are shared out");
    stop = true;
    busy.join();
#endif
    std::printf("every row once\n");
}
