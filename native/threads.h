// Threads that share the rows of one call. They take blocks of rows one at a time, and the caller works too.
//
// The threads of torch's OpenMP are preferred: they stay awake for a while after torch's last operation, and
// would compete with a second set of threads. But OpenMP waits for every thread, even for one that a busy
// machine wakes after all work is done. If that is observed, a thread pool is used for a second, which does
// not wait for idle threads. The pool is also used without OpenMP, and in a forked process, where OpenMP
// would hang.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace labelsmooth {

struct Job {
    int64_t rows, block;
    void (*body)(void*, int64_t, int64_t);
    void* context;
    std::atomic<int64_t> next{0};

    Job(int64_t rows, int64_t block, void (*body)(void*, int64_t, int64_t), void* context)
        : rows(rows), block(block), body(body), context(context) {}

    void work() {
        for (;;) {
            int64_t begin = next.fetch_add(block, std::memory_order_relaxed);
            if (begin >= rows) return;
            body(context, begin, begin + block < rows ? begin + block : rows);
        }
    }
};

class Team {
   public:
    static Team& get() {
        static Team team;
        return team;
    }

    // Runs the job and returns true, or returns false if OpenMP is missing or at rest.
    bool run(Job& job, int threads) {
        if (!parallel_ || clock::now().time_since_epoch().count() < rest_until_.load(std::memory_order_relaxed))
            return false;
        Call call{job, std::this_thread::get_id(), {}};
        const auto begin = clock::now();
        parallel_(&Team::work, &call, unsigned(threads), 0);
        const auto end = clock::now(), done = call.done;
        if (end - done > long_wait && end - done > done - begin)
            rest_until_.store((end + rest).time_since_epoch().count(), std::memory_order_relaxed);
        return true;
    }

    void leave() { parallel_ = nullptr; }

   private:
    using clock = std::chrono::steady_clock;
    static constexpr std::chrono::microseconds long_wait{300};
    static constexpr std::chrono::seconds rest{1};

    struct Call {
        Job& job;
        std::thread::id caller;
        clock::time_point done;  // the time at which the caller had no work left
    };

    static void work(void* context) {
        Call& call = *static_cast<Call*>(context);
        call.job.work();
        if (std::this_thread::get_id() == call.caller) call.done = clock::now();
    }

    Team() {
#if !defined(_WIN32)
        parallel_ = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#endif
    }

    using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
    Parallel parallel_ = nullptr;
    std::atomic<clock::rep> rest_until_{0};
};

class Pool {
   public:
    // The pool is never destroyed, as its threads may outlive every static object.
    static Pool& get() {
        static bool once = (renew(), at_fork(), true);
        (void)once;
        return *current();
    }

    void run(Job& job, int threads) {
        // If another thread of the process is using the pool, this one works alone.
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return job.work();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            grow(threads - 1);
            job_ = &job;
            seats_ = threads - 1;
            ++generation_;
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> lock(mutex_);
        job_ = nullptr;
        done_.wait(lock, [this] { return working_ == 0; });
    }

   private:
    static Pool*& current() {
        static Pool* pool = nullptr;
        return pool;
    }
    static void renew() { current() = new Pool; }
    static void at_fork() {
#if !defined(_WIN32)
        pthread_atfork(nullptr, nullptr, [] {
            renew();
            Team::get().leave();
        });
#endif
    }

    void grow(int size) {
        try {
            for (; size_ < size; ++size_) std::thread(&Pool::serve, this, generation_).detach();
        } catch (const std::system_error&) {
            // If no more threads can be started, the existing ones do the work.
        }
    }

    void serve(uint64_t seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen; });
            seen = generation_;
            if (!job_ || seats_ == 0) continue;
            Job* job = job_;
            --seats_;
            ++working_;
            lock.unlock();
            job->work();
            lock.lock();
            if (--working_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    uint64_t generation_ = 0;
    int size_ = 0, seats_ = 0, working_ = 0;
};

// Calls body(context, begin, end) for blocks of rows, in up to `threads` threads.
inline void share_out(
    int64_t rows, int64_t block, int threads, void (*body)(void*, int64_t, int64_t), void* context) {
    Pool& pool = Pool::get();
    Job job(rows, block, body, context);
    if (threads <= 1 || rows <= block) return job.work();
    if (!Team::get().run(job, threads)) pool.run(job, threads);
}

}  // namespace labelsmooth
