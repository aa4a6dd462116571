// The kernels against their definition, without Python. One target a run: SEGUE_TARGET names it.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>

#include "checks.h"
#include "kernels.h"

namespace {

constexpr const char* kUsage =
    "kernels_test [--quick] [--targets] [words]\n"
    "  --quick    fewer sizes and options\n"
    "  --targets  prints the targets that run here\n"
    "  words      only checks that have them in their name";

// The targets are named by the refusal of one that is none; a refusal leaves the choice open.
int print_targets() {
    setenv("SEGUE_TARGET", "?", 1);
    try {
        segue::compiled_for();
    } catch (const std::invalid_argument& refusal) {
        const std::string message = refusal.what(), before = "expected one of ", after = ", got";
        const std::size_t from = message.find(before) + before.size();
        std::istringstream names(message.substr(from, message.find(after) - from));
        for (std::string name; std::getline(names >> std::ws, name, ',');) std::puts(name.c_str());
        return 0;
    }
    return 2;
}

int run(bool quick, const std::string& filter) {
    Harness harness(quick, filter);
    std::printf("target %s\n", segue::compiled_for());
    harness.group("gradients", [&] { check_gradients(harness); });
    harness.group("products", [&] { check_products(harness); });
    harness.group("diagonal", [&] { check_diagonal(harness); });
    harness.group("agreement", [&] { check_agreement(harness); });
    harness.group("bits", [&] { check_bits(harness); });
    return harness.summary();
}

}  // namespace

int main(int count, char** arguments) {
    bool quick = false;
    std::string filter;
    for (int k = 1; k < count; ++k) {
        const std::string word = arguments[k];
        if (word == "--targets") return print_targets();
        if (word == "--quick") {
            quick = true;
        } else if (!word.empty() && word[0] == '-') {
            std::fprintf(stderr, "kernels_test: expected --quick or --targets, got %s\n%s\n", word.c_str(), kUsage);
            return 2;
        } else {
            filter += (filter.empty() ? "" : " ") + word;
        }
    }
    try {
        return run(quick, filter);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "kernels_test: %s\n", error.what());
        return 2;
    }
}
