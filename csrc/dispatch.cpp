// Picks the target once, at load; SEGUE_TARGET forces one, for tests.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "blocked.h"
#include "kernels.h"
#include "reference.h"

namespace segue {
namespace {

struct Target {
    const char* name;
    const Primitives* primitives;  // null: the plain loops
    bool runs_here;
};

#ifdef SEGUE_X86_TARGETS
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

Target pick() {
    const Target targets[] = {
    // the fastest first
#ifdef SEGUE_X86_TARGETS
        {"avx512", &avx512_primitives, has_avx512()},
        {"avx2", &avx2_primitives, has_avx2()},
#endif
        {"reference", nullptr, true},
    };
    const char* forced = std::getenv("SEGUE_TARGET");
    const std::string wanted = forced ? forced : "";
    std::string usable;
    for (const Target& target : targets) {
        if (!target.runs_here) continue;
        if (wanted.empty() || wanted == target.name) return target;
        usable += (usable.empty() ? "" : ", ") + std::string(target.name);
    }
    throw std::invalid_argument("SEGUE_TARGET: expected one of " + usable + ", got " + wanted +
                                "; unset it to use the fastest target of this machine");
}

const Target& target() {
    static const Target picked = pick();
    return picked;
}

}  // namespace

void affine(const Affine& call) {
    if (const Primitives* p = target().primitives) return blocked::affine(*p, call);
    reference::affine(call);
}

void scan_elman(const Elman& call) {
    if (const Primitives* p = target().primitives) return blocked::scan_elman(*p, call);
    reference::scan_elman(call);
}

void scan_lstm(const Lstm& call) {
    if (const Primitives* p = target().primitives) return blocked::scan_lstm(*p, call);
    reference::scan_lstm(call);
}

void scan_gru(const Gru& call) {
    if (const Primitives* p = target().primitives) return blocked::scan_gru(*p, call);
    reference::scan_gru(call);
}

const char* compiled_for() {
    return target().name;
}

}  // namespace segue
