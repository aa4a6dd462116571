// Numbers that are too small to be normal count as 0.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace segue {

// While it lives, on its thread: below 1.2e-38 there is 0. Gradients that fade over hundreds of steps end there, and a
// processor takes ten times as long for such numbers.
class Flush {
   public:
    Flush() : before_(get()) {
        if ((before_ & kBits) != kBits) set(before_ | kBits);
    }
    ~Flush() {
        if ((before_ & kBits) != kBits) set(before_);
    }
    Flush(const Flush&) = delete;
    Flush& operator=(const Flush&) = delete;

   private:
#if defined(__x86_64__) || defined(_M_X64)
    using Word = std::uint32_t;
    static constexpr Word kBits = 0x8040;  // what comes out, and what goes in
    static Word get() { return _mm_getcsr(); }
    static void set(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
    using Word = std::uint64_t;
    static constexpr Word kBits = 1u << 24;
    static Word get() {
        Word word;
        __asm__ volatile("mrs %0, fpcr" : "=r"(word));
        return word;
    }
    static void set(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
    using Word = std::uint32_t;
    static constexpr Word kBits = 0;
    static Word get() { return 0; }
    static void set(Word) {}
#endif
    const Word before_;
};

}  // namespace segue
