// Fixed pieces of work on one thread, one a run, for instructions.py to count the instructions of.
#include <cstdio>
#include <string>

#include "native.h"

namespace {

struct Work {
    const char* name;
    int kind;          // of kinds()
    unsigned options;
    bool step;  // one step of one sequence, nothing kept
};

const Work kWork[] = {
    {"elman", 1, 0, false},
    {"elman-step", 1, 0, true},
    {"lstm", 4, 0, false},
    {"lstm-step", 4, 0, true},
    {"lstm-options", 4, kWithDraws, false},
    {"gru-after", 5, 0, false},
    {"gru-after-step", 5, 0, true},
    {"gru-after-options", 5, kWithDraws, false},
    {"gru-before", 6, 0, false},
    {"gru-before-options", 6, kWithDraws, false},
};

Case case_of(const Work& work) {
    const Kind& kind = kinds()[work.kind];
    if (work.step) return {kind, applicable(kind, work.options), {64, 128, 64, {1}}};
    return {kind, applicable(kind, work.options), {37, 70, 33, {9, 4, 0, 12, 12, 1, 7, 3, 10, 5, 8}}};
}

// Of the products that the scan makes, or the way back.
long long multiply_adds(const Problem& q, bool back) {
    const int64_t projected = q.w_r.empty() ? 0 : q.hidden * q.width, inputs = back ? 0 : q.inputs;
    return static_cast<long long>(q.steps() * (q.columns() * (inputs + q.width) + projected));
}

}  // namespace

// work: prints for each piece its name, the function to count in, and how many multiply-adds it makes.
// work NAME: does the piece of that name, there and, unless it is one step, back.
int main(int count, char** arguments) {
    static const char* functions[] = {"scan_elman", "scan_lstm", "scan_gru"};
    for (const Work& work : kWork) {
        const Problem q = draw(case_of(work), 1);
        if (count == 1) {
            const char* function = functions[static_cast<int>(q.law)];
            std::printf("%s %s %lld\n", work.name, function, multiply_adds(q, false));
            if (!work.step) std::printf("%s %s_back %lld\n", work.name, function, multiply_adds(q, true));
        } else if (work.name == std::string(arguments[1])) {
            const Result k = scan(q, {1, work.step ? 0u : static_cast<unsigned>(kEverything)});
            if (!work.step) scan_back(q, k, {1});
            return 0;
        }
    }
    if (count > 1) std::fprintf(stderr, "work: expected the name of a piece of work, got %s\n", arguments[1]);
    return count > 1 ? 2 : 0;
}
