#include "scan.h"

#include <functional>
#include <queue>
#include <utility>

namespace segue::blocked {

std::vector<std::vector<Sequence>> share_out(const Sequences& over, int64_t shares) {
    std::vector<Sequence> sequences(over.count);
    for (int64_t s = 0, first = 0; s < over.count; first += over.lengths[s++])
        sequences[s] = {s, first, over.lengths[s], -1, over.lengths[s]};
    const auto longer = [](const Sequence& a, const Sequence& b) { return a.length > b.length; };
    // A sort asks for memory, even where there is nothing to sort.
    if (!std::is_sorted(sequences.begin(), sequences.end(), longer))
        std::stable_sort(sequences.begin(), sequences.end(), longer);
    std::vector<std::vector<Sequence>> dealt(shares);
    if (shares == 1) {
        dealt.front() = std::move(sequences);
        return dealt;
    }
    std::vector<int64_t> steps(shares);
    for (const Sequence& sequence : sequences) {
        const auto least = std::min_element(steps.begin(), steps.end()) - steps.begin();
        dealt[least].push_back(sequence);
        steps[least] += std::max<int64_t>(1, sequence.length);
    }
    return dealt;
}

int64_t chain(std::vector<Sequence>& share, int64_t most) {
    const int64_t count = share.size(), longest = std::max<int64_t>(1, share.front().length);
    int64_t all = 0;
    for (const Sequence& sequence : share) all += sequence.length;
    // So few rows that none has to be much longer than the longest sequence; or, of too many, even parts.
    const int64_t full = std::max<int64_t>(1, (all + longest - 1) / longest), turns = (full + most - 1) / most;
    const int64_t rows = std::min({count, most, (full + turns - 1) / turns});
    if (rows == count) return rows;
    using End = std::pair<int64_t, int64_t>;  // the steps of a row, and the row
    std::priority_queue<End, std::vector<End>, std::greater<End>> ends;
    std::vector<int64_t> last(rows);
    for (int64_t row = 0; row < rows; ++row) ends.push({share[row].length, last[row] = row});
    for (int64_t s = rows; s < count; ++s) {
        const auto [steps, row] = ends.top();
        ends.pop();
        share[last[row]].next = s;
        last[row] = s;
        share[row].steps = steps + share[s].length;
        ends.push({share[row].steps, row});
    }
    std::stable_sort(share.begin(), share.begin() + rows,
                     [](const Sequence& a, const Sequence& b) { return a.steps > b.steps; });
    return rows;
}

void before(const Primitives& p, const Before& call) {
    const int64_t R = call.width;
    const double work = static_cast<double>(call.over.steps * R) * 16;  // moving a value costs so many products
    const int threads = useful_threads(call.over.threads, call.over.count, work);
    const auto sequences = share_out(call.over, 1).front();
    run_shares(threads, call.over.count, [&](int64_t k) {
        const Sequence& sequence = sequences[k];
        const float* state = call.first + sequence.index * R;
        const float* mask = row_of(call.mask, sequence.index, R);
        for (int64_t t = 0; t < sequence.length; ++t) {
            const int64_t n = sequence.row(t, call.over.reverse);
            if (mask)
                p.multiply(R, mask, state, call.before + n * R);
            else
                std::copy(state, state + R, call.before + n * R);
            state = call.y + n * R;
        }
    });
}

bool together(const Sequences& over, const Weights& w_h, int threads, int64_t worth) {
    if (threads < 2) return false;
    const int64_t weights = w_h.inputs * w_h.outputs;
    const int64_t longest = *std::max_element(over.lengths, over.lengths + over.count);
    return weights > kNearWeights || (over.steps < longest * threads && weights > worth);
}

int64_t shares_of(const Sequences& over, const Weights& w_h, int threads) {
    if (threads == 1) return 1;
    const int64_t longest = std::max<int64_t>(1, *std::max_element(over.lengths, over.lengths + over.count));
    const int64_t rows = std::min(over.count, (over.steps + longest - 1) / longest);
    const bool is_small = w_h.inputs * w_h.outputs <= kSmallWeights && !w_h.half && longest > 1;
    const int64_t shares = rows / (is_small ? kShareRows : 3 * kShareRows);
    // Two each are the least with which a faster one can take more.
    return shares < 2 * threads ? std::min<int64_t>(threads, over.count) : std::min<int64_t>(shares, 8 * threads);
}

InputPart::InputPart(const Primitives& p, const Recurrence& over, bool is_whole, int64_t columns,
                     const std::vector<Sequence>& share, int64_t rows)
    : gates(rows, over.norm_x.gain && !over.gates ? columns : 0) {
    const bool is_one_step = share.front().steps <= 1;  // then the weights are read once either way
    is_added = is_whole && (!over.w_x.half || p.has_tiles) && (rows >= kFewRows || is_one_step);
    if (is_added) return;
    int64_t all = 0;
    for (const Sequence& sequence : share) all += sequence.length;
    steps = std::max(rows, std::min(all, kGateValues / std::max<int64_t>(1, columns)));
    if (!(over.norm_x.gain ? over.norm_x.xhat : over.gates)) values.reset(new float[steps * columns]);
}

RecurrentProduct::RecurrentProduct(const Recurrence& over, int64_t columns, int groups, int64_t rows)
    : over_(over),
      columns_(columns),
      groups_(groups),
      seen_(rows, over.mask ? over.width : 0),
      product_(rows, over.norm_h.gain ? columns + 1 : 0) {}

const float* const* RecurrentProduct::seen(const Now& now) const {
    if (!over_.mask) return now.h;
    const int64_t R = over_.width;
    for (int64_t k = now.mine.from; k < now.mine.to; ++k)
        now.p.multiply(R, over_.mask + now.sequence[k].index * R, now.h[k], seen_[k]);
    return seen_.data();
}

void RecurrentProduct::multiply(const Now& now, const float* const* x, const Weights& w, int64_t at,
                                int64_t gate_at) const {
    const bool has_norm = over_.norm_h.gain;
    for (int64_t k = 0; k < now.rows; ++k) now.to[k] = has_norm ? product(now, k) + at : now.gates[k] + gate_at;
    if (has_norm) {
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) std::fill(now.to[k], now.to[k] + w.outputs, 0.0f);
        now.team.wait();
    }
    now.multiply_add(x, w, now.to);
    now.team.wait();
}

void RecurrentProduct::normalize(const Now& now, int group, int64_t at, int64_t size, int64_t gate_at,
                                 const float* start) const {
    const Norm &of_x = over_.norm_x, &of_h = over_.norm_h;
    if (!of_h.gain) return;
    for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
        float *x_to = now.gates[k] + at, *h_to = now.gates[k] + gate_at;
        const NormRow both[] = {
            {now.input[k] + at, of_x.gain + at, rstd(now, k, of_x, group), over_.b + at, x_to},
            {product(now, k) + at, of_h.gain + at, rstd(now, k, of_h, group), start ? start : h_to, h_to}};
        now.p.normalize(size, both, 2);
    }
}

StateGrad::StateGrad(const RecurrenceGrad& over, int64_t d_columns, int64_t columns, int groups, int64_t rows,
                     int64_t more)
    : over_(over),
      d_columns_(d_columns),
      columns_(columns),
      groups_(groups),
      more_(more),
      dh_(rows, over.width),
      kept_(rows, over.width),
      masked_(rows, over.mask ? over.width : 0),
      part_(rows, sums()),
      sum_(rows, sums()) {}

void StateGrad::begin(const Sequence* sequence, Range mine) const {
    for (int64_t k = mine.from; k < mine.to; ++k) {
        kept_.set(k, row_of(over_.dh_last, sequence[k].index, over_.width));
        part_.clear(k);
        sum_.clear(k);
    }
}

void StateGrad::finish(const Sequence* sequence, Range mine) const {
    const int64_t R = over_.width;
    for (int64_t k = mine.from; k < mine.to; ++k) {
        const int64_t index = sequence[k].index;
        std::copy(kept_[k], kept_[k] + R, over_.dh0 + index * R);
        for (int64_t j = 0; j < sums(); ++j) sum_[k][j] += part_[k][j];
        const float* from = sum_[k];
        std::copy(from, from + d_columns_, over_.d_sum + index * d_columns_);
        if (!over_.norm_h.gain) continue;
        from += d_columns_;
        std::copy(from, from + columns_, over_.dgain_x + index * columns_);
        std::copy(from + columns_, from + 2 * columns_, over_.dgain_h + index * columns_);
    }
}

void StateGrad::start(const Now& now) const {
    const int64_t R = over_.width;
    for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
        if (over_.dy)
            now.p.add(R, kept_[k], over_.dy + now.n[k] * R, dh_[k]);
        else
            dh_.set(k, kept_[k]);
        if (is_zoned(over_.zone_h))
            now.p.mix_back(R, row_of(over_.zone_h.keep, now.n[k], R), over_.zone_h.rate, dh_[k], kept_[k]);
        else
            kept_.clear(k);
        if (over_.mask) masked_.clear(k);
    }
}

void StateGrad::norm(const Now& now, int group, int64_t at, int64_t d_at, int64_t size) const {
    const Norm &of_x = over_.norm_x, &of_h = over_.norm_h;
    if (!of_h.gain) return;
    for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
        const int64_t row = now.n[k] * columns_ + at, one = now.n[k] * groups_ + group;
        float *dgain_x = part_[k] + d_columns_ + at, *dgain_h = dgain_x + columns_;
        const NormRowGrad both[] = {
            {of_x.xhat + row, of_x.rstd + one, of_x.gain + at, d(now, k) + at, over_.du_x + row, dgain_x},
            {of_h.xhat + row, of_h.rstd + one, of_h.gain + at, d(now, k) + d_at, over_.du_h + row, dgain_h}};
        now.p.normalize_back(size, both, 2);
    }
}

void StateGrad::sum(const Now& now) const {
    constexpr int64_t kBlock = 128;  // sums of sums, so that rounding does not grow with the steps
    for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
        now.p.add(d_columns_, part_[k], d(now, k), part_[k]);
        if (now.done[k] % kBlock) continue;
        now.p.add(sums(), sum_[k], part_[k], sum_[k]);
        part_.clear(k);
    }
}

void StateGrad::add(const Now& now, const Weights& w_t, int64_t at, int64_t d_at) const {
    for (int64_t k = 0; k < now.rows; ++k) now.from[k] = product(now, k, at, d_at);
    now.multiply_add(now.from, w_t, over_.mask ? masked_.data() : kept_.data());
}

void StateGrad::add(const Now& now, const Weights& w_t, int64_t at, int64_t d_at, const Weights& w2_t, int64_t at2,
                    int64_t d_at2) const {
    const float* other[kRows];
    for (int64_t k = 0; k < now.rows; ++k) {
        now.from[k] = product(now, k, at, d_at);
        other[k] = product(now, k, at2, d_at2);
    }
    float* const* to = over_.mask ? masked_.data() : kept_.data();
    now.share_panels(w_t, [&](int64_t from, int64_t end) {
        multiply_add(now.p, now.rows, now.from, w_t, from, end, to);
        multiply_add(now.p, now.rows, other, w2_t, from, end, to);
    });
}

void StateGrad::end(const Now& now) const {
    if (!over_.mask) return;
    now.team.wait();
    const int64_t R = over_.width;
    for (int64_t k = now.mine.from; k < now.mine.to; ++k)
        now.p.add_product(R, over_.mask + now.sequence[k].index * R, masked_[k], kept_[k]);
}

}  // namespace segue::blocked
