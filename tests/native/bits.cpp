#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>

#include "checks.h"
#include "native.h"

namespace {

void same_bits(const std::string& name, const Floats& got, const Floats& want) {
    require(got.size() == want.size(), name + ": expected " + std::to_string(want.size()) + " values, got " +
                                           std::to_string(got.size()));
    if (want.empty() || std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0) return;
    std::size_t k = 0;
    while (std::memcmp(&got[k], &want[k], sizeof(float)) == 0) ++k;
    char text[100];
    std::snprintf(text, sizeof text, "[%zu]: expected %.9g to the bit, got %.9g", k, want[k], got[k]);
    throw Failure(name + text);
}

// The arrays of `got` are those of `want` to the bit; those that were not asked for are passed over.
template <class Arrays>
void all_same_bits(const Problem& q, Arrays got, Arrays want) {
    std::vector<const Floats*> wanted;
    each_array(q, want, [&](const char*, Floats& a, int64_t, bool) { wanted.push_back(&a); });
    std::size_t k = 0;
    each_array(q, got, [&](const char* name, Floats& a, int64_t, bool) {
        if (!a.empty()) same_bits(name, a, *wanted[k]);
        ++k;
    });
}

// The rows of all arrays that belong to the pieces.
template <class Arrays>
Arrays rows_of(const Problem& q, Arrays all, const std::vector<Piece>& pieces) {
    each_array(q, all, [&](const char*, Floats& a, int64_t width, bool per_step) {
        a = per_step ? steps_of(a, width, pieces) : sequences_of(a, width, pieces);
    });
    return all;
}

// A problem, and what its whole batch gives on one thread.
struct Whole {
    Problem q;
    Result k;
    Gradients g;
    explicit Whole(const Case& of) : q(draw(of, 31)), k(scan(q)), g(scan_back(q, k)) {}
};

void check_pieces(const Whole& whole, const std::vector<Piece>& pieces, const Run& run) {
    const Problem part = take(whole.q, pieces);
    const Result k = scan(part, run);
    all_same_bits(whole.q, k, rows_of(whole.q, whole.k, pieces));
    all_same_bits(whole.q, scan_back(part, k, run), rows_of(whole.q, whole.g, pieces));
}

void check_alone(const Whole& whole) {
    const std::vector<Piece> pieces = pieces_of(whole.q.lengths);
    for (std::size_t s = 0; s < pieces.size(); s += 1 + s / 8) check_pieces(whole, {pieces[s]}, {});
}

void check_order(const Whole& whole) {
    std::vector<Piece> pieces = pieces_of(whole.q.lengths);
    std::reverse(pieces.begin(), pieces.end());
    check_pieces(whole, pieces, {});
    Draw draw(3);
    for (std::size_t s = pieces.size(); s > 1; --s) std::swap(pieces[s - 1], pieces[draw.below(s)]);
    check_pieces(whole, pieces, {2});
    pieces.resize(pieces.size() / 2);
    check_pieces(whole, pieces, {});
}

void check_threads(const Whole& whole) {
    for (int threads : {2, 3, 5}) check_pieces(whole, pieces_of(whole.q.lengths), {threads});
}

// The steps [from, to) of every sequence, counted in the direction of time.
std::vector<Piece> cut(const Problem& q, int64_t from, int64_t to) {
    std::vector<Piece> pieces = pieces_of(q.lengths);
    for (Piece& piece : pieces) {
        const int64_t begin = std::min(from, piece.length), end = std::min(to, piece.length);
        piece.first += q.reverse ? piece.length - end : begin;
        piece.length = end - begin;
    }
    return pieces;
}

// The state is handed from chunk to chunk, and on the way back its gradient.
void check_chunks(const Whole& whole, int64_t size) {
    const Problem& q = whole.q;
    const int64_t longest = *std::max_element(q.lengths.begin(), q.lengths.end());
    std::vector<Problem> chunks;
    std::vector<Result> results;
    Floats h = q.h0, c = q.c0;
    for (int64_t from = 0; from < longest; from += size) {
        const std::vector<Piece> pieces = cut(q, from, from + size);
        Problem chunk = take(q, pieces);
        chunk.h0 = h, chunk.c0 = c;
        Result k = scan(chunk);
        h = k.h_last, c = k.c_last;
        Result want = rows_of(q, whole.k, pieces);
        want.h_last = h, want.c_last = c;
        all_same_bits(q, k, want);
        chunks.push_back(chunk), results.push_back(k);
    }
    same_bits("h_last", h, whole.k.h_last);
    same_bits("c_last", c, whole.k.c_last);
    Floats dh = q.dh_last, dc = q.dc_last;
    for (std::size_t k = chunks.size(); k-- > 0;) {
        chunks[k].dh_last = dh, chunks[k].dc_last = dc;
        const Gradients g = scan_back(chunks[k], results[k]);
        dh = g.dh0, dc = g.dc0;
        const int64_t from = static_cast<int64_t>(k) * size;
        Gradients want = rows_of(q, whole.g, cut(q, from, from + size));
        want.dh0 = dh, want.dc0 = dc;
        // Each chunk has sums of its own.
        want.d_sum = g.d_sum, want.dgain_x = g.dgain_x, want.dgain_h = g.dgain_h;
        want.dgain_c = g.dgain_c, want.dbias_c = g.dbias_c;
        all_same_bits(q, g, want);
    }
    same_bits("dh0", dh, whole.g.dh0);
    same_bits("dc0", dc, whole.g.dc0);
}

void check_in_place(const Whole& whole) {
    all_same_bits(whole.q, scan(whole.q, {2, kEverything, true}), whole.k);
    all_same_bits(whole.q, scan_back(whole.q, whole.k, {2, kEverything, true}), whole.g);
}

// Whatever is asked for besides the answer, the answer is the same.
void check_kept(const Whole& whole) {
    all_same_bits(whole.q, scan(whole.q, {1, 0}), whole.k);
    for (unsigned bit = 1; bit < kEverything; bit <<= 1) {
        all_same_bits(whole.q, scan(whole.q, {1, bit}), whole.k);
        all_same_bits(whole.q, scan(whole.q, {2, kEverything & ~bit}), whole.k);
    }
}

// A sequence of no steps hands on its state and the gradient of it.
void check_empty(const Whole& whole) {
    std::vector<Piece> pieces;
    for (const Piece& piece : pieces_of(whole.q.lengths))
        if (piece.length == 0) pieces.push_back(piece);
    require(!pieces.empty(), "expected a sequence without steps in this batch");
    const Problem q = take(whole.q, pieces);
    const Result k = rows_of(whole.q, whole.k, pieces);
    const Gradients g = rows_of(whole.q, whole.g, pieces);
    same_bits("h_last", k.h_last, q.h0);
    same_bits("c_last", k.c_last, q.c0);
    same_bits("dh0", g.dh0, q.dh_last);
    same_bits("dc0", g.dc0, q.dc_last);
}

// `sick` differs from the whole in sequence s alone: all others are the same to the bit, forward and back.
void check_others(const Whole& whole, const Problem& sick, int64_t s) {
    std::vector<Piece> others = pieces_of(sick.lengths);
    others.erase(others.begin() + s);
    for (int threads : {1, 2}) {
        const Result k = scan(sick, {threads});
        const Gradients g = scan_back(sick, k, {threads});
        all_same_bits(sick, rows_of(sick, k, others), rows_of(sick, whole.k, others));
        all_same_bits(sick, rows_of(sick, g, others), rows_of(sick, whole.g, others));
    }
}

void check_nan(const Whole& whole) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<Piece> pieces = pieces_of(whole.q.lengths);
    const auto longest = std::max_element(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
        return a.length < b.length;
    });
    const int64_t s = longest->sequence, middle = longest->first + longest->length / 2;
    Problem sick = whole.q;
    sick.x[middle * sick.inputs] = nan;
    check_others(whole, sick, s);
    if (sick.keep_h.empty()) {
        const Floats y = scan(sick).y;
        for (int64_t j = 0; j < sick.width; ++j)
            require(std::isnan(y[middle * sick.width + j]), "expected NaN after a step whose input is NaN");
    }
    sick = whole.q, sick.h0[s * sick.width] = nan;
    check_others(whole, sick, s);
    sick = whole.q, sick.dy[middle * sick.width] = nan;
    check_others(whole, sick, s);
    require(std::isnan(scan_back(sick, whole.k).d[middle * sick.kept_columns()]) || !sick.keep_h.empty(),
            "expected NaN in d where dy is NaN");
    sick = whole.q, sick.dh_last[s * sick.width] = nan;
    check_others(whole, sick, s);
    if (sick.law != definition::Law::lstm) return;
    sick = whole.q, sick.c0[s * sick.hidden] = nan, sick.dc_last[s * sick.hidden] = nan;
    check_others(whole, sick, s);
}

void check_laws(Harness& harness, const Case& of) {
    const std::string name = of.name();
    // Made for the first check that is asked for.
    std::unique_ptr<Whole> made;
    const auto law = [&](const std::string& title, const std::function<void(const Whole&)>& check) {
        harness.check(title + " " + name, [&] {
            if (!made) made = std::make_unique<Whole>(of);
            check(*made);
        });
    };
    law("alone = in a batch", check_alone);
    law("any order", check_order);
    law("any threads", check_threads);
    for (int64_t size : {1, 3, 8})
        law("chunks of " + std::to_string(size), [=](const Whole& whole) { check_chunks(whole, size); });
    law("in place", check_in_place);
    law("whatever is kept", check_kept);
    law("no steps", check_empty);
    law("NaN stays", check_nan);
}

}  // namespace

void check_bits(Harness& harness) {
    std::vector<int64_t> lengths = {7, 0, 1, 23, 2};
    for (int64_t s = 0; s < 28; ++s) lengths.push_back(s % 5);
    const Sizes narrow = {17, 20, 9, lengths}, wide = {3, 67, 130, lengths}, one = {1, 1, 1, lengths};
    // More rows than are taken together, and work enough to be shared out.
    std::vector<int64_t> many;
    for (int64_t s = 0; s < 230; ++s) many.push_back(s * s % 13);
    for (const Kind& kind : kinds()) {
        const auto laws = [&](unsigned options, const Sizes& sizes) {
            check_laws(harness, {kind, applicable(kind, options), sizes});
        };
        for (unsigned options : {0u, kWithDraws, kWithRates}) laws(options, narrow);
        laws(kWithDraws, wide);
        laws(kWithDraws | kHalf, narrow);
        if (!harness.quick())
            for (unsigned options : {0u, kWithRates, static_cast<unsigned>(kReverse)})
                laws(options, wide), laws(options, one), laws(options, {5, 257, 66, lengths});
        const Case large{kind, applicable(kind, kWithDraws), {9, 64, 33, many}};
        // Weights beyond a cache: several threads share the same rows, with norms and without.
        const Sizes shared = {5, 700, 130, {3, 0, 1, 2, 6, 4, 5, 3, 6}};
        const Case heavy{kind, applicable(kind, kWithDraws), shared}, plain{kind, applicable(kind, 0), shared};
        for (const Case& of : {large, heavy, plain})
            harness.check("any threads " + of.name(), [&] { check_threads(Whole(of)); });
    }
}
