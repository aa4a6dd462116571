// A linear recurrence: each unit by itself, so rows and units are shared out alike.
#include "scan.h"

namespace segue::blocked {

void scan_linear(const Primitives& p, const Linear& call) {
    constexpr int64_t kUnits = 128;  // of a piece, so that a few rows are work for several threads
    const int64_t H = call.hidden, count = call.over.count;
    const double work = static_cast<double>(call.over.steps * H) * 4;  // three numbers are read and one is written
    const int threads = useful_threads(call.over.threads, call.over.threads, work);
    const int64_t parts = count >= 4 * threads ? 1 : (H + kUnits - 1) / kUnits;
    const auto sequences = share_out(call.over, 1).front();
    run_shares(threads, count * parts, [&](int64_t piece) {
        const Sequence& sequence = sequences[piece / parts];
        const Range mine = part_of(H, static_cast<int>(piece % parts), static_cast<int>(parts));
        const int64_t units = mine.to - mine.from;
        const float* h = call.h0 + sequence.index * H + mine.from;
        for (int64_t t = 0; t < sequence.length; ++t) {
            const int64_t at = sequence.row(t, call.over.reverse) * H + mine.from;
            p.advance_linear(units, call.a + at, h, call.b + at, call.y + at);
            h = call.y + at;
        }
        float* last = call.h_last + sequence.index * H + mine.from;
        if (h != last) std::copy(h, h + units, last);
    });
}

}  // namespace segue::blocked
