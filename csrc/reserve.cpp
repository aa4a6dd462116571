#include "reserve.h"

#include <cstdlib>
#include <mutex>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace segue {
namespace {

constexpr std::size_t kPage = 2 << 20;      // a large page
constexpr std::size_t kKept = 256ull << 20;

struct Piece {
    void* memory;
    std::size_t bytes;
};

struct Reserve {
    std::mutex lock;
    std::vector<Piece> pieces;  // the oldest first
    std::size_t bytes = 0;
};

// Never destroyed: arrays may be given back while the process ends.
Reserve& reserve() {
    static Reserve* const one = new Reserve;
    return *one;
}

std::size_t whole_pages(std::size_t bytes) {
    return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

void* take_memory(std::size_t bytes) {
    bytes = whole_pages(bytes);
    {
        Reserve& kept = reserve();
        const std::lock_guard<std::mutex> hold(kept.lock);
        for (std::size_t k = kept.pieces.size(); k-- > 0;) {
            if (kept.pieces[k].bytes != bytes) continue;
            void* const memory = kept.pieces[k].memory;
            kept.pieces.erase(kept.pieces.begin() + static_cast<std::ptrdiff_t>(k));
            kept.bytes -= bytes;
            return memory;
        }
    }
    void* const memory = std::aligned_alloc(kPage, bytes);
#if defined(MADV_HUGEPAGE)
    if (memory) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: nothing is said where it is not granted
#endif
    return memory;
}

void give_memory(void* memory, std::size_t bytes) {
    bytes = whole_pages(bytes);
    std::vector<Piece> gone;
    {
        Reserve& kept = reserve();
        const std::lock_guard<std::mutex> hold(kept.lock);
        kept.pieces.push_back({memory, bytes});
        kept.bytes += bytes;
        while (kept.bytes > kKept) {
            gone.push_back(kept.pieces.front());
            kept.bytes -= gone.back().bytes;
            kept.pieces.erase(kept.pieces.begin());
        }
    }
    for (const Piece& piece : gone) std::free(piece.memory);
}

}  // namespace segue
