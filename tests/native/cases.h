// Which laws, options and sizes are tried, and the numbers for them: drawn from a seed, the same on every machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "definition.h"

using std::int64_t;
using Floats = definition::Array<float>;
using Problem = definition::Problem<float>;
using Result = definition::Result<float>;
using Gradients = definition::Gradients<float>;

// SplitMix64, so that no library decides what is drawn.
class Draw {
   public:
    explicit Draw(std::uint64_t seed) : state_(seed) {}
    std::uint64_t bits();
    int64_t below(int64_t limit) { return static_cast<int64_t>(bits() % static_cast<std::uint64_t>(limit)); }
    float between(float low, float high);
    Floats many(int64_t size, float low, float high);
    std::vector<std::uint8_t> flags(int64_t size, float share);

   private:
    std::uint64_t state_;
};

enum Option : unsigned {
    kNorm = 1 << 0,
    kMask = 1 << 1,
    kDrawH = 1 << 2,
    kRateH = 1 << 3,
    kReverse = 1 << 4,
    kZeroState = 1 << 5,
    kNoDy = 1 << 6,
    kNoDhLast = 1 << 7,
    kDrawC = 1 << 8,
    kRateC = 1 << 9,
    kPeepholes = 1 << 10,
    kProjection = 1 << 11,
    kNormC = 1 << 12,
    kNoDcLast = 1 << 13,
    kHalf = 1 << 14,
};
constexpr unsigned kOptions = 15;
constexpr unsigned kLstmAlone = kDrawC | kRateC | kPeepholes | kProjection | kNormC | kNoDcLast;
constexpr unsigned kWithDraws = kNorm | kMask | kDrawH | kReverse | kDrawC | kPeepholes | kProjection | kNormC;
constexpr unsigned kWithRates = kNorm | kMask | kRateH | kRateC | kPeepholes | kProjection | kNormC;

// A law with what its constructor fixes.
struct Kind {
    std::string name;
    definition::Law law;
    segue::Activation activation;
    bool reset_after;
};

const std::vector<Kind>& kinds();

// The options of `options` that the law has.
unsigned applicable(const Kind& kind, unsigned options);

struct Sizes {
    int64_t inputs, hidden, projected;
    std::vector<int64_t> lengths;
};

struct Case {
    Kind kind;
    unsigned options;
    Sizes sizes;
    std::string name() const;
};

// Each option alone, none, all, and `more` sets drawn by seed, half of them pairs.
std::vector<unsigned> option_sets(const Kind& kind, int more);

// Sizes that are multiples of nothing; lengths 0, 1, equal and unequal.
const std::vector<Sizes>& sizes_to_try();

Problem draw(const Case& of, std::uint64_t seed);
definition::Problem<double> widen(const Problem& q);

// Steps [first, first + length) of one sequence, first counted over all sequences.
struct Piece {
    int64_t sequence, first, length;
};

// Every sequence, whole.
std::vector<Piece> pieces_of(const std::vector<int64_t>& lengths);

// A problem whose sequences are these pieces; each begins with its sequence's own initial state.
Problem take(const Problem& q, const std::vector<Piece>& pieces);

// Rows of an array [N, width], those of the pieces; and of [B, width], those of their sequences.
template <class Value>
std::vector<Value> steps_of(const std::vector<Value>& a, int64_t width, const std::vector<Piece>& pieces) {
    std::vector<Value> out;
    if (a.empty()) return out;
    for (const Piece& piece : pieces) {
        const auto start = a.begin() + piece.first * width;
        out.insert(out.end(), start, start + piece.length * width);
    }
    return out;
}

template <class Value>
std::vector<Value> sequences_of(const std::vector<Value>& a, int64_t width, const std::vector<Piece>& pieces) {
    std::vector<Value> out;
    if (a.empty()) return out;
    for (const Piece& piece : pieces) {
        const auto start = a.begin() + piece.sequence * width;
        out.insert(out.end(), start, start + width);
    }
    return out;
}

// Calls f(name, array, width, whether per step) for the arrays of a result, or of gradients.
template <class Real, class F>
void each_array(const Problem& q, definition::Result<Real>& k, F f) {
    const int64_t H = q.hidden, R = q.width;
    f("y", k.y, R, true);
    f("h_last", k.h_last, R, false);
    f("c_last", k.c_last, H, false);
    f("gates", k.gates, q.kept_columns(), true);
    f("xhat_x", k.xhat_x, q.columns(), true);
    f("rstd_x", k.rstd_x, q.groups(), true);
    f("xhat_h", k.xhat_h, q.columns(), true);
    f("rstd_h", k.rstd_h, q.groups(), true);
    f("c", k.c, H, true);
    f("chat", k.chat, H, true);
    f("rstd_c", k.rstd_c, 1, true);
    f("m", k.m, H, true);
}

template <class Real, class F>
void each_array(const Problem& q, definition::Gradients<Real>& g, F f) {
    const int64_t H = q.hidden, R = q.width;
    f("d", g.d, q.kept_columns(), true);
    f("du_x", g.du_x, q.columns(), true);
    f("du_h", g.du_h, q.columns(), true);
    f("d_sum", g.d_sum, q.kept_columns(), false);
    f("dgain_x", g.dgain_x, q.columns(), false);
    f("dgain_h", g.dgain_h, q.columns(), false);
    f("dh0", g.dh0, R, false);
    f("dc0", g.dc0, H, false);
    f("dm_out", g.dm_out, R, true);
    f("dgain_c", g.dgain_c, H, false);
    f("dbias_c", g.dbias_c, H, false);
}
