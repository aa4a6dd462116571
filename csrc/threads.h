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

// How many pieces of a part of some work are taken; one line of memory for each part.
class alignas(64) Taken {
   public:
    // The next one of `count` pieces in this round, counted from 1; `count` or more where none is left.
    std::int64_t next(std::uint64_t round, std::int64_t count) {
        const std::uint64_t first = round << 32;
        std::uint64_t state = state_.load(std::memory_order_relaxed);
        while (true) {
            const std::uint64_t here = state < first ? first : state;  // far above where a later round has begun
            const auto at = static_cast<std::int64_t>(here - first);
            if (at >= count) return at;
            if (state_.compare_exchange_weak(state, here + 1, std::memory_order_relaxed)) return at;
        }
    }

   private:
    std::atomic<std::uint64_t> state_{0};
};

inline Range part_of(std::int64_t count, int rank, int size) {
    return {count * rank / size, count * (rank + 1) / size};
}

// Calls piece(k) for pieces [0, count), as one of `size` threads that all do so in this round. A thread begins with its
// own part, always the same one, which its cache may still know; then it takes of what others have left: cores differ
// in speed, by their kind or by what else they have to do.
template <class Piece>
void share_pieces(std::int64_t count, int rank, int size, Taken* taken, std::uint64_t round, Piece piece) {
    for (int k = 0; k < size; ++k) {
        const int whose = (rank + k) % size;
        const Range part = part_of(count, whose, size);
        const std::int64_t all = part.to - part.from;
        for (std::int64_t at; (at = taken[whose].next(round, all)) < all;) piece(part.from + at);
    }
}

// The threads that work on the same rows, as one of them sees it.
struct Team {
    int rank = 0, size = 1;
    Barrier* barrier = nullptr;
    Taken* taken = nullptr;
    mutable std::uint64_t round = 0;  // the same for all of them

    void wait() const {
        if (size > 1) barrier->wait();
    }
    Range part(std::int64_t count) const { return part_of(count, rank, size); }
    // As share_pieces; other pieces of a round may still be under way when it returns.
    template <class Piece>
    void share(std::int64_t count, Piece piece) const {
        share_pieces(count, rank, size, taken, ++round, piece);
    }
};

// Runs share(0) ... share(count - 1), each once, on up to `threads` threads, dealt out as by share_pieces.
void run_shares(int threads, std::int64_t count, const std::function<void(std::int64_t)>& share);

// Runs work(team) on each of up to `count` threads at once; the team says how many came.
void run_team(int count, const std::function<void(const Team&)>& work);

// How many threads pay for `work` multiply-adds in `items` pieces, of those wanted.
int useful_threads(int wanted, std::int64_t items, double work);

}  // namespace segue
