// Names the checks, runs those that were asked for, and counts.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

// A law that does not hold.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void require(bool holds, const std::string& what) {
    if (!holds) throw Failure(what);
}

class Harness {
   public:
    Harness(bool quick, std::string filter) : quick_(quick), filter_(std::move(filter)) {}

    bool quick() const { return quick_; }

    // Runs the checks that body makes, and prints one line about them.
    void group(const std::string& name, const std::function<void()>& body);

    // Runs one check, if its name or that of its group is asked for.
    void check(const std::string& name, const std::function<void()>& body);

    // What share of its tolerance the last difference took: the largest of a group is printed.
    void used(double share) { worst_ = share > worst_ ? share : worst_; }

    // Adds to the digest of all results, which every target must give alike.
    void digest(const void* bytes, std::size_t size);

    // Prints the sum and returns the exit code.
    int summary() const;

   private:
    bool quick_;
    std::string filter_, group_;
    int checks_ = 0, failures_ = 0, all_checks_ = 0, all_failures_ = 0;
    double worst_ = 0;
    std::uint64_t digest_ = 14695981039346656037u;
};
