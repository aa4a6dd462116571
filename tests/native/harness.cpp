#include "harness.h"

#include <chrono>
#include <cstdio>

#include "kernels.h"

void Harness::group(const std::string& name, const std::function<void()>& body) {
    using Clock = std::chrono::steady_clock;
    group_ = name, checks_ = failures_ = 0, worst_ = 0;
    const auto start = Clock::now();
    body();
    if (checks_ == 0) return;
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::printf("%-12s %5d checks, %d failed, %.1f s", name.c_str(), checks_, failures_, seconds);
    if (worst_ > 0) std::printf(", at most %.0f %% of the tolerance", 100 * worst_);
    std::printf("\n");
    std::fflush(stdout);
    all_checks_ += checks_, all_failures_ += failures_;
}

void Harness::check(const std::string& name, const std::function<void()>& body) {
    const std::string full = group_ + ": " + name;
    if (full.find(filter_) == std::string::npos) return;
    ++checks_;
    try {
        body();
    } catch (const Failure& failure) {
        if (++failures_ <= 5) std::printf("FAILED %s: %s\n", full.c_str(), failure.what());
        if (failures_ == 6) std::printf("FAILED %s: more than 5, the others are only counted\n", group_.c_str());
        std::fflush(stdout);
    }
}

void Harness::digest(const void* bytes, std::size_t size) {  // FNV-1a
    const auto* byte = static_cast<const unsigned char*>(bytes);
    for (std::size_t k = 0; k < size; ++k) digest_ = (digest_ ^ byte[k]) * 1099511628211u;
}

int Harness::summary() const {
    if (all_checks_ == 0) std::printf("no check has '%s' in its name\n", filter_.c_str());
    std::printf("%s: %d checks, %d failed, digest %016llx\n", segue::compiled_for(), all_checks_, all_failures_,
                static_cast<unsigned long long>(digest_));
    return all_failures_ > 0 || all_checks_ == 0;
}
