// Torch's threads are used where they are in the process: GNU OpenMP keeps them waiting in a pool, and a second pool
// would fight with it for the same cores. Its entry points are looked up by name, so nothing is linked; where they are
// not to be found, threads of our own are started for each call.
#include "threads.h"

#include "flush.h"

#include <algorithm>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) && !defined(__APPLE__)
#include <dlfcn.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace segue {
namespace {

constexpr double kThreadWork = 2e5;  // multiply-adds that pay for one more thread, measured

using Work = void (*)(void*);

struct Pool {
    void (*parallel)(Work, void*, unsigned, unsigned) = nullptr;
    int (*rank)() = nullptr;
    int (*size)() = nullptr;
};

const Pool* pool() {
    static const Pool found = [] {
        Pool pool;
#if defined(__unix__) && !defined(__APPLE__)
        pool.parallel = reinterpret_cast<decltype(pool.parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        pool.rank = reinterpret_cast<decltype(pool.rank)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
        pool.size = reinterpret_cast<decltype(pool.size)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
#endif
        return pool;
    }();
    return found.parallel && found.rank && found.size ? &found : nullptr;
}

// Threads of our own, started together: none begins before it is known how many the system grants.
void run_own(int count, const std::function<void(int, int)>& work) {
    std::atomic<int> size{0};
    std::vector<std::thread> threads;
    threads.reserve(count - 1);
    try {
        for (int rank = 1; rank < count; ++rank)
            threads.emplace_back([&, rank] {
                while (!size.load(std::memory_order_acquire)) std::this_thread::yield();
                work(rank, size.load());
            });
    } catch (const std::system_error&) {}
    size.store(static_cast<int>(threads.size()) + 1, std::memory_order_release);
    work(0, size.load());
    for (std::thread& thread : threads) thread.join();
}

// Calls work(rank, size) once on each of up to `count` threads.
void run(int count, const std::function<void(int, int)>& work) {
    if (count == 1) return work(0, 1);
    const Pool* shared = pool();
    if (!shared) {
        return run_own(count, [&](int rank, int size) {
            const Flush flush;
            work(rank, size);
        });
    }
    const auto enter = [](void* data) {
        const Flush flush;
        const Pool& pool_here = *pool();
        (*static_cast<const std::function<void(int, int)>*>(data))(pool_here.rank(), pool_here.size());
    };
    shared->parallel(enter, const_cast<std::function<void(int, int)>*>(&work), static_cast<unsigned>(count), 0);
}

}  // namespace

void Barrier::wait() {
    const int round = round_.load(std::memory_order_acquire);
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        left_.store(size_, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
        if (spins < 1000) continue;  // about half a microsecond; a pause takes a tenth of that
        if (spins > 2000) std::this_thread::yield();
#if defined(__x86_64__)
        _mm_pause();
#endif
    }
}

void run_shares(int threads, std::int64_t count, const std::function<void(std::int64_t)>& share) {
    threads = static_cast<int>(std::min<std::int64_t>(threads, count));
    if (threads <= 1) {
        for (std::int64_t k = 0; k < count; ++k) share(k);
        return;
    }
    std::vector<Taken> taken(threads);
    run(threads, [&](int rank, int size) { share_pieces(count, rank, size, taken.data(), 1, share); });
}

void run_team(int count, const std::function<void(const Team&)>& work) {
    std::vector<std::unique_ptr<Barrier>> barriers;  // one for each size that the team may turn out to have
    for (int size = 1; size <= count; ++size) barriers.push_back(std::make_unique<Barrier>(size));
    std::vector<Taken> taken(count);
    run(count, [&](int rank, int size) { work({rank, size, barriers[size - 1].get(), taken.data()}); });
}

int useful_threads(int wanted, std::int64_t items, double work) {
    const double paid = std::max(1.0, work / kThreadWork);
    const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(wanted, items));
    return paid < static_cast<double>(most) ? static_cast<int>(paid) : static_cast<int>(most);
}

}  // namespace segue
