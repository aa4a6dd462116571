// Buffers that notice what is written beside them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "harness.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SEGUE_EXACT_BUFFERS
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SEGUE_EXACT_BUFFERS
#endif

// The buffers of one call. Each lies between two canaries and is aligned to its values only; under the address
// sanitiser, which guards better, it has an allocation of its own size. What stands around a buffer, and in an output
// before the call, is NaN: what is read there shows. Inputs are compared with a copy afterwards.
class Memory {
   public:
    template <class Value>
    const Value* input(const std::vector<Value>& values, const char* name) {
        Value* at = reinterpret_cast<Value*>(room(values.size() * sizeof(Value), sizeof(Value), name, true));
        if (!values.empty()) std::memcpy(at, values.data(), values.size() * sizeof(Value));
        if (!values.empty()) std::memcpy(blocks_.back().before.data(), values.data(), values.size() * sizeof(Value));
        return at;
    }

    // Null where there are no values.
    template <class Value>
    const Value* optional(const std::vector<Value>& values, const char* name) {
        return values.empty() ? nullptr : input(values, name);
    }

    // Becomes the values of `to` in finish().
    float* output(std::vector<float>& to, std::int64_t size, const char* name) {
        float* at = reinterpret_cast<float*>(room(size * sizeof(float), sizeof(float), name, false));
        to.resize(size);
        outputs_.push_back({at, &to});
        return at;
    }

    // An output that begins as `values`, which may be `to`.
    float* advanced(std::vector<float>& to, const std::vector<float>& values, const char* name) {
        const std::vector<float> first = values;
        float* at = output(to, static_cast<std::int64_t>(first.size()), name);
        if (!first.empty()) std::memcpy(at, first.data(), first.size() * sizeof(float));
        return at;
    }

    // An output aligned to a cache line.
    float* aligned(std::vector<float>& to, std::int64_t size, const char* name) {
        float* at = reinterpret_cast<float*>(room(size * sizeof(float), 64, name, false));
        to.resize(size);
        outputs_.push_back({at, &to});
        return at;
    }

    void finish() {
        for (const Block& block : blocks_) {
            const std::size_t end = block.start + block.size;
            for (std::size_t k = 0; k < block.all; ++k) {
                if (k == block.start) k = end;
                if (k < block.all && block.bytes[k] != fill(k))
                    throw Failure(std::string(block.name) + ": written outside");
            }
            if (block.constant && block.size && std::memcmp(&block.bytes[block.start], &block.before[0], block.size))
                throw Failure(std::string(block.name) + ": an input was written to");
        }
        for (const Output& output : outputs_)
            if (!output.to->empty()) std::memcpy(output.to->data(), output.at, output.to->size() * sizeof(float));
    }

   private:
    struct Free {
        void operator()(unsigned char* p) const { std::free(p); }
    };
    struct Block {
        std::unique_ptr<unsigned char[], Free> bytes;
        std::size_t start, size, all;
        const char* name;
        bool constant;
        std::vector<unsigned char> before;
    };
    struct Output {
        float* at;
        std::vector<float>* to;
    };
#ifdef SEGUE_EXACT_BUFFERS
    static constexpr std::size_t kGuard = 0;
#else
    static constexpr std::size_t kGuard = 128;
#endif

    // NaN where it is read as floats from a multiple of 4
    static unsigned char fill(std::size_t at) {
        static constexpr unsigned char nan[] = {0xad, 0xfb, 0xda, 0x7f};
        return nan[at % 4];
    }

    unsigned char* room(std::size_t size, std::size_t alignment, const char* name, bool constant) {
        // Canaries reach from the end to the end of the allocation, so an end within a cache line is guarded as well.
        const std::size_t start = kGuard == 0 ? 0 : kGuard + (alignment < 64 ? alignment : 0);
        const std::size_t all = start + size + kGuard;
        void* bytes = nullptr;
        if (posix_memalign(&bytes, 64, all + (all == 0)) != 0) throw std::bad_alloc();
        blocks_.push_back({std::unique_ptr<unsigned char[], Free>(static_cast<unsigned char*>(bytes)), start, size, all,
                           name, constant, std::vector<unsigned char>(constant ? size : 0)});
        for (std::size_t k = 0; k < all; ++k) blocks_.back().bytes[k] = fill(k);
        return blocks_.back().bytes.get() + start;
    }

    std::vector<Block> blocks_;
    std::vector<Output> outputs_;
};
