// Work on several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace segue {

// Waits until all of a team have come. It spins: a team waits for microseconds, many times.
class Barrier {
   public:
    explicit Barrier(int size) : size_(size), left_(size) {}
    void wait();

   private:
    const int size_;
    // Apart, so that who comes does not take from those who wait the line that they watch.
    alignas(64) std::atomic<int> left_;
    alignas(64) std::atomic<int> round_{0};
};

struct Range {
    std::int64_t from, to;
};

// The threads that work on the same rows, as one of them sees it.
struct Team {
    int rank = 0, size = 1;
    Barrier* barrier = nullptr;

    void wait() const {
        if (size > 1) barrier->wait();
    }
    Range part(std::int64_t count) const { return {count * rank / size, count * (rank + 1) / size}; }
};

// Runs share(0) ... share(count - 1), each once, on up to `threads` threads. A thread begins with its own part of them,
// always the same one, which its cache may still know; then it takes of what others have left: cores differ in speed,
// by their kind or by what else they have to do.
void run_shares(int threads, std::int64_t count, const std::function<void(std::int64_t)>& share);

// Runs work(team) on each of up to `count` threads at once; the team says how many came.
void run_team(int count, const std::function<void(const Team&)>& work);

// How many threads pay for `work` multiply-adds in `items` pieces, of those wanted.
int useful_threads(int wanted, std::int64_t items, double work);

}  // namespace segue
