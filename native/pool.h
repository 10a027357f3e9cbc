// A pool of threads that share out the rows of one call.
//
// Blocks are handed out one at a time, and the caller works too: a thread that a busy machine wakes late
// holds nothing up, it finds no block left. A process made by fork has a pool of its own.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace labelsmooth {

class Pool {
   public:
    // Never destroyed: its threads may outlive every static object.
    static Pool& get() {
        static bool once = (renew(), at_fork(), true);
        (void)once;
        return *current();
    }

    // Calls body(context, begin, end) for blocks of rows, in up to `threads` threads.
    void run(int64_t rows, int64_t block, int threads, void (*body)(void*, int64_t, int64_t), void* context) {
        // Another thread of the process that has the pool leaves this one to work alone.
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (threads <= 1 || rows <= block || !turn.owns_lock()) {
            if (rows > 0) body(context, 0, rows);
            return;
        }
        Job job{rows, block, body, context};
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

    static Pool*& current() {
        static Pool* pool = nullptr;
        return pool;
    }
    static void renew() { current() = new Pool; }
    static void at_fork() {
#if !defined(_WIN32)
        pthread_atfork(nullptr, nullptr, renew);
#endif
    }

    void grow(int size) {
        try {
            for (; size_ < size; ++size_) std::thread(&Pool::serve, this, generation_).detach();
        } catch (const std::system_error&) {
            // Without more threads the ones there are do the work.
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

}  // namespace labelsmooth
