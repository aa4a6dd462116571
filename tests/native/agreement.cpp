#include <cmath>

#include "checks.h"
#include "compare.h"
#include "native.h"

namespace {

using Wide = definition::Problem<double>;
using WideResult = definition::Result<double>;
using WideGradients = definition::Gradients<double>;

// All arrays of a result, or of gradients; `scale` as in compare().
template <template <class> class Arrays>
void compare_all(Harness& harness, const Problem& q, Arrays<float> got, Arrays<double> want, Arrays<float> plain,
                 double scale) {
    std::vector<const definition::Array<double>*> wanted;
    std::vector<const Floats*> plainly;
    each_array(q, want, [&](const char*, auto& a, int64_t, bool) { wanted.push_back(&a); });
    each_array(q, plain, [&](const char*, auto& a, int64_t, bool) { plainly.push_back(&a); });
    std::size_t k = 0;
    each_array(q, got, [&](const char* name, auto& a, int64_t, bool) {
        compare(harness, name, q.half ? kHalfway : kFloat, a, *wanted[k], *plainly[k], scale);
        // Tiles of bfloat16 have an order of sums of their own.
        if (!q.half) harness.digest(a.data(), a.size() * sizeof(float));
        ++k;
    });
}

// At its kink either slope of relu is right: the one that the kernel took is taken here.
template <class Real>
void same_side_of_kink(const Problem& q, const Result& got, definition::Result<Real>& k) {
    if (q.law != definition::Law::elman || q.activation != segue::Activation::relu) return;
    for (std::size_t j = 0; j < k.gates.size(); ++j)
        if (std::abs(k.gates[j]) < (q.half ? 0.05 : 1e-4)) k.gates[j] = got.gates[j];
}

void compare_with_definition(Harness& harness, const Case& of, std::uint64_t seed, int threads) {
    const Problem q = draw(of, seed);
    const Wide wide = widen(q);
    const Run run{threads};
    const Result got = scan(q, run);
    WideResult want = definition::forward(wide);
    Result plain = definition::forward(q);
    compare_all<definition::Result>(harness, q, got, want, plain, 0);
    same_side_of_kink(q, got, want);
    same_side_of_kink(q, got, plain);
    const WideGradients back = definition::backward(wide, want);
    // A norm of a product that is nearly constant makes its gradient hundreds of times as large; what is then left of
    // it in dh may be small again, but not more exact.
    compare_all<definition::Gradients>(harness, q, scan_back(q, got, run), back, definition::backward(q, plain),
                                       std::max(largest(back.du_x), largest(back.du_h)));
}

}  // namespace

void check_agreement(Harness& harness) {
    const std::vector<Sizes>& sizes = sizes_to_try();
    const std::size_t all = sizes.size(), each = harness.quick() ? 2 : all;
    std::size_t turn = 0;
    for (const Kind& kind : kinds())
        for (unsigned options : option_sets(kind, harness.quick() ? 6 : 30))
            for (std::size_t k = 0; k < each; ++k, ++turn) {
                const Case of{kind, options, sizes[turn % all]};
                // Large weights on several threads: they are shared out in another way.
                const int threads = static_cast<int>(of.sizes.hidden > 500 ? 2 + turn / 2 % 2 : 1 + turn / 2 % 3);
                harness.check(of.name(), [&] { compare_with_definition(harness, of, 100 + turn, threads); });
            }
}
