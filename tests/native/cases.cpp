#include "cases.h"

#include <algorithm>
#include <cmath>

using definition::Law;
using segue::Activation;

std::uint64_t Draw::bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float Draw::between(float low, float high) {
    const float share = static_cast<float>(bits() >> 40) * 0x1p-24f;
    return low + (high - low) * share;
}

Floats Draw::many(int64_t size, float low, float high) {
    Floats values(size);
    for (float& value : values) value = between(low, high);
    return values;
}

std::vector<std::uint8_t> Draw::flags(int64_t size, float share) {
    std::vector<std::uint8_t> values(size);
    for (std::uint8_t& value : values) value = between(0, 1) < share;
    return values;
}

const std::vector<Kind>& kinds() {
    static const std::vector<Kind> all = {
        {"elman-identity", Law::elman, Activation::identity, true},
        {"elman-tanh", Law::elman, Activation::tanh, true},
        {"elman-relu", Law::elman, Activation::relu, true},
        {"elman-sigmoid", Law::elman, Activation::sigmoid, true},
        {"lstm", Law::lstm, Activation::tanh, true},
        {"gru-after", Law::gru, Activation::tanh, true},
        {"gru-before", Law::gru, Activation::tanh, false},
    };
    return all;
}

unsigned applicable(const Kind& kind, unsigned options) {
    return kind.law == Law::lstm ? options : options & ~kLstmAlone;
}

std::string Case::name() const {
    static const char* names[kOptions] = {"norm",  "mask",   "draw-h", "rate-h",    "reverse",    "zero-state", "no-dy",
                                          "no-dh", "draw-c", "rate-c", "peepholes", "projection", "norm-c",     "no-dc",
                                          "half"};
    std::string text = kind.name;
    for (unsigned k = 0; k < kOptions; ++k)
        if (options >> k & 1) text += std::string(" ") + names[k];
    text += " I=" + std::to_string(sizes.inputs) + " H=" + std::to_string(sizes.hidden);
    if (options & kProjection) text += " P=" + std::to_string(sizes.projected);
    int64_t steps = 0;
    for (int64_t length : sizes.lengths) steps += length;
    return text + " B=" + std::to_string(sizes.lengths.size()) + " N=" + std::to_string(steps);
}

std::vector<unsigned> option_sets(const Kind& kind, int more) {
    std::vector<unsigned> single, sets = {0};
    for (unsigned k = 0; k < kOptions; ++k)
        if (applicable(kind, 1u << k)) single.push_back(1u << k);
    sets.insert(sets.end(), single.begin(), single.end());
    sets.push_back(applicable(kind, kWithDraws));
    sets.push_back(applicable(kind, kWithRates));
    Draw draw(17);
    for (int k = 0; k < more; ++k) {
        unsigned set = 0;
        if (k % 2 == 0)
            for (int pick = 0; pick < 2; ++pick) set |= single[draw.below(static_cast<int64_t>(single.size()))];
        else
            for (unsigned option : single) set |= draw.below(2) ? option : 0;
        sets.push_back(set);
    }
    return sets;
}

namespace {

// Some 0, some 1, some long.
std::vector<int64_t> unequal(int64_t count, int64_t most) {
    std::vector<int64_t> lengths(count);
    for (int64_t s = 0; s < count; ++s) lengths[s] = s % 7 == 3 ? most : s * s % (most / 2 + 1);
    return lengths;
}

std::vector<int64_t> equal(int64_t count, int64_t length) {
    return std::vector<int64_t>(count, length);
}

}  // namespace

const std::vector<Sizes>& sizes_to_try() {
    static const std::vector<Sizes> all = {
        {17, 17, 9, {7, 0, 1, 23, 2}},
        {67, 64, 33, equal(7, 1)},
        {130, 257, 64, {1, 0, 3, 2, 2}},
        {5, 67, 130, unequal(33, 9)},
        {1, 1, 1, {5}},
        {64, 130, 67, unequal(7, 12)},
        {3, 17, 3, unequal(100, 6)},
        {67, 1030, 257, {3, 0, 1, 2}},
        {3, 3, 2, {4, 0}},
        {257, 66, 17, equal(5, 3)},
        {1030, 31, 17, {3, 2}},
        {17, 20, 7, {60}},
        {2, 130, 3, equal(1, 1)},
        {64, 64, 64, equal(33, 4)},
        {3, 5, 2, {0, 0, 0}},
        {3, 5, 2, {}},
    };
    return all;
}

Problem draw(const Case& of, std::uint64_t seed) {
    Draw draw(seed);
    Problem q;
    const unsigned options = of.options;
    q.law = of.kind.law, q.activation = of.kind.activation, q.reset_after = of.kind.reset_after;
    q.reverse = options & kReverse;
    q.half = options & kHalf;
    q.lengths = of.sizes.lengths;
    q.inputs = of.sizes.inputs, q.hidden = of.sizes.hidden;
    q.width = options & kProjection ? of.sizes.projected : q.hidden;
    const int64_t B = q.count(), N = q.steps(), I = q.inputs, H = q.hidden, R = q.width, G = q.columns();
    const float in = 1 / std::sqrt(static_cast<float>(I)), back = 1 / std::sqrt(static_cast<float>(R));
    q.x = draw.many(N * I, -2, 2), q.w_x = draw.many(G * I, -in, in), q.b = draw.many(G, -0.5f, 0.5f);
    q.w_h = draw.many(G * R, -back, back);
    if (q.law == Law::gru && q.reset_after) q.b_hn = draw.many(H, -0.5f, 0.5f);
    q.h0 = options & kZeroState ? Floats(B * R, 0) : draw.many(B * R, -1, 1);
    if (q.law == Law::lstm) q.c0 = options & kZeroState ? Floats(B * H, 0) : draw.many(B * H, -1, 1);
    if (options & kMask)
        for (std::uint8_t kept : draw.flags(B * R, 0.75f)) q.mask.push_back(kept ? 1 / 0.75f : 0);
    if (options & kNorm) q.gain_x = draw.many(G, 0.5f, 1.5f), q.gain_h = draw.many(G, 0.5f, 1.5f);
    if (options & kPeepholes) q.peepholes = draw.many(3 * H, -0.5f, 0.5f);
    if (options & kProjection) q.w_r = draw.many(R * H, -1 / std::sqrt(float(H)), 1 / std::sqrt(float(H)));
    if (options & kNormC) q.gain_c = draw.many(H, 0.5f, 1.5f), q.bias_c = draw.many(H, -0.5f, 0.5f);
    if (options & kDrawH) q.keep_h = draw.flags(N * R, 0.3f);
    if (options & kDrawC) q.keep_c = draw.flags(N * H, 0.3f);
    if (options & kRateH) q.rate_h = 0.25f;
    if (options & kRateC) q.rate_c = 0.125f;
    if (!(options & kNoDy)) q.dy = draw.many(N * R, -1, 1);
    if (!(options & kNoDhLast)) q.dh_last = draw.many(B * R, -1, 1);
    if (q.law == Law::lstm && !(options & kNoDcLast)) q.dc_last = draw.many(B * H, -1, 1);
    return q;
}

definition::Problem<double> widen(const Problem& q) {
    const auto wide = [](const Floats& a) { return definition::Array<double>(a.begin(), a.end()); };
    definition::Problem<double> w;
    w.law = q.law, w.activation = q.activation, w.reset_after = q.reset_after, w.reverse = q.reverse, w.half = q.half;
    w.inputs = q.inputs, w.hidden = q.hidden, w.width = q.width, w.lengths = q.lengths;
    w.x = wide(q.x), w.w_x = wide(q.w_x), w.b = wide(q.b);
    w.w_h = wide(q.w_h), w.b_hn = wide(q.b_hn), w.h0 = wide(q.h0), w.c0 = wide(q.c0);
    w.mask = wide(q.mask), w.gain_x = wide(q.gain_x), w.gain_h = wide(q.gain_h);
    w.peepholes = wide(q.peepholes), w.w_r = wide(q.w_r);
    w.gain_c = wide(q.gain_c), w.bias_c = wide(q.bias_c);
    w.keep_h = q.keep_h, w.keep_c = q.keep_c, w.rate_h = q.rate_h, w.rate_c = q.rate_c;
    w.dy = wide(q.dy), w.dh_last = wide(q.dh_last), w.dc_last = wide(q.dc_last);
    return w;
}

std::vector<Piece> pieces_of(const std::vector<int64_t>& lengths) {
    std::vector<Piece> pieces;
    int64_t first = 0;
    for (int64_t s = 0; s < static_cast<int64_t>(lengths.size()); first += lengths[s++])
        pieces.push_back({s, first, lengths[s]});
    return pieces;
}

Problem take(const Problem& q, const std::vector<Piece>& pieces) {
    const int64_t H = q.hidden, R = q.width;
    Problem part = q;
    part.lengths.clear();
    for (const Piece& piece : pieces) part.lengths.push_back(piece.length);
    part.x = steps_of(q.x, q.inputs, pieces);
    part.dy = steps_of(q.dy, R, pieces);
    part.keep_h = steps_of(q.keep_h, R, pieces), part.keep_c = steps_of(q.keep_c, H, pieces);
    part.h0 = sequences_of(q.h0, R, pieces), part.c0 = sequences_of(q.c0, H, pieces);
    part.mask = sequences_of(q.mask, R, pieces);
    part.dh_last = sequences_of(q.dh_last, R, pieces), part.dc_last = sequences_of(q.dc_last, H, pieces);
    return part;
}
