// Large arrays that a training makes and drops at every call. The system hands out memory a page at a time and cleared,
// which takes a good part of the time they are used for; so what is given back is kept for the next call.
#pragma once

#include <cstddef>

namespace segue {

// At least so many bytes, not cleared, aligned to large pages. Null where the system has none.
void* take_memory(std::size_t bytes);

// What take_memory gave, of the same size. It is kept for the next, 256 MB in all; the oldest goes first.
void give_memory(void* memory, std::size_t bytes);

}  // namespace segue
