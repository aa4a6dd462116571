// Picks the target once, at load; SEGUE_TARGET forces one, for tests.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "blocked.h"
#include "flush.h"
#include "kernels.h"

#ifdef SEGUE_AMX_TARGET
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace segue {
namespace {

struct Target {
    const char* name;
    const Primitives* primitives;
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

#ifdef SEGUE_AMX_TARGET
// A process asks Linux once for the registers of the tiles.
bool has_amx() {
    unsigned a, b, c, d;
    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool has_tiles = d >> 24 & 1 && d >> 22 & 1;  // AMX-TILE and AMX-BF16
    if (!has_tiles || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return false;  // AVX512-BF16
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

Target pick() {
    const Target targets[] = {
    // the fastest first
#ifdef SEGUE_AMX_TARGET
        {"amx", &amx_primitives, has_amx()},
#endif
#ifdef SEGUE_X86_TARGETS
        {"avx512", &avx512_primitives, has_avx512()},
        {"avx2", &avx2_primitives, has_avx2()},
#endif
#ifdef SEGUE_ARM_TARGETS
        {"neon", &neon_primitives, true},
#endif
        {"plain", &plain_primitives, true},
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

const Primitives& here() {
    return *target().primitives;
}

}  // namespace

std::int64_t packed_size(std::int64_t outputs, std::int64_t inputs, std::int64_t gates, bool half) {
    return blocked::packed_size(here(), outputs, inputs, gates, half);
}

void pack(std::int64_t outputs, std::int64_t inputs, const float* w, std::int64_t row, std::int64_t column,
          float* packed, int threads, std::int64_t gates, bool half) {
    blocked::pack(here(), outputs, inputs, w, row, column, packed, threads, gates, half);
}

void affine(const Affine& call) {
    const Flush flush;
    blocked::affine(here(), call);
}

void column_sums(const ColumnSums& call) {
    const Flush flush;
    blocked::column_sums(here(), call);
}

void outer(const Outer& call) {
    const Flush flush;
    blocked::outer(here(), call);
}

void before(const Before& call) {
    const Flush flush;
    blocked::before(here(), call);
}

void draw(const Draw& call) {
    const Flush flush;
    blocked::draw(here(), call);
}

void scan_linear(const Linear& call) {
    const Flush flush;
    blocked::scan_linear(here(), call);
}

void scan_diagonal(const DiagonalScan& call) {
    const Flush flush;
    blocked::scan_diagonal(here(), call);
}

void scan_diagonal_back(const DiagonalGrad& call) {
    const Flush flush;
    blocked::scan_diagonal_back(here(), call);
}

void scan_elman(const Elman& call) {
    const Flush flush;
    blocked::scan_elman(here(), call);
}

void scan_lstm(const Lstm& call) {
    const Flush flush;
    blocked::scan_lstm(here(), call);
}

void scan_gru(const Gru& call) {
    const Flush flush;
    blocked::scan_gru(here(), call);
}

void scan_elman_back(const ElmanGrad& call) {
    const Flush flush;
    blocked::scan_elman_back(here(), call);
}

void scan_lstm_back(const LstmGrad& call) {
    const Flush flush;
    blocked::scan_lstm_back(here(), call);
}

void scan_gru_back(const GruGrad& call) {
    const Flush flush;
    blocked::scan_gru_back(here(), call);
}

const char* compiled_for() {
    return target().name;
}

}  // namespace segue
