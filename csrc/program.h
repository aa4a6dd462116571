// A program: a causal layer, or a whole model, as a list of operations that one call runs over all steps of a batch.
//
// Operations read and write slots. A slot is an array whose first axis is one of four counts that every call decides:
//   N steps of all sequences, B sequences, M steps at which answers are wanted, E ends of sequences,
// and whose other axes are fixed, so [N, 3, 8] is a slot of rows N and axes 3, 8. The memory of inputs and of states
// before and after is the caller's, and so is that of outputs; what lies between is scratch, kept for the next call.
//
// Weights are copied and packed when their operation is added. A single step is a call with one step per sequence, and
// every operation keeps the law of kernels.h, so steps, chunks and whole sequences give the same bits. A program does
// not change while it runs: any number of threads may run it at once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"

namespace segue {

enum class Type { f32, f64, i64 };
std::int64_t bytes_of(Type type);

struct FreeAligned {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};
template <class T>
using Aligned = std::unique_ptr<T, FreeAligned>;

// A matrix [outputs, inputs] as a layer holds it, row after row.
struct Matrix {
    std::int64_t outputs, inputs;
    const float* w;
};

struct Slot {
    std::string name;  // for messages
    Type type;
    char rows;                       // N, B, M or E
    std::vector<std::int64_t> axes;  // may be none: a number per row
    std::int64_t width;              // their product
};

// Where a state lies before and after a call; after < 0: it never changes.
struct StateSlots {
    int before, after;
};

// One call: its counts and the memory of every slot.
struct Run {
    const std::vector<Slot>& slots;
    std::array<std::int64_t, 4> counts;  // of N, B, M, E
    std::vector<void*>& memory;          // by slot
    int threads;

    template <class T>
    T* at(int slot) const {
        return slot < 0 ? nullptr : static_cast<T*>(memory[slot]);
    }
    float* f32(int slot) const { return at<float>(slot); }
    double* f64(int slot) const { return at<double>(slot); }
    std::int64_t* i64(int slot) const { return at<std::int64_t>(slot); }
    std::int64_t count(char rows) const;
    std::int64_t size(int slot) const { return count(slots[slot].rows) * slots[slot].width; }
};

// What a recurrent layer holds; a pointer that may be null stands for an option that is off.
struct RecurrentWeights {
    Matrix w_x;              // [G, I]
    const float* b;          // [G]
    Matrix w_h;              // [G, R]
    const float *gain_x, *gain_h;  // [G], optional, both or neither
    float zoneout_h;
};

struct LstmWeights {
    const float* peepholes;  // [3, H], optional
    Matrix w_r;              // [P, H]; w is null without a projection
    const float* gain_c;     // [H], optional
    const float* bias_c;     // [H]
    float zoneout_c;
};

struct Recurrent;  // what a scan is called with, but for the memory of the call

class Program {
  public:
    static constexpr int kLengths = 0;  // the slot of the lengths, int64 [B], which every program has

    Program();

    const std::vector<Slot>& slots() const { return slots_; }
    const std::vector<int>& inputs() const { return inputs_; }
    const std::vector<int>& outputs() const { return outputs_; }
    const std::vector<StateSlots>& states() const { return states_; }

    // Slots of the caller. A state is read from its slot `before`; operations that change it are given its number.
    int input(const std::string& name, Type type, char rows, const std::vector<std::int64_t>& axes);
    int state(const std::string& name, Type type, const std::vector<std::int64_t>& axes);
    // A state that begins anew in every call, its rows [axes] made of `first` [size] again and again, and that nobody
    // is given; numbers below 0 tell it from the others.
    int fresh(const std::string& name, char rows, const std::vector<std::int64_t>& axes, const float* first,
              std::int64_t size);
    void output(int slot);

    // Operations of layers, on the last axis; each gives the slot of its result. `lengths` says which steps of x make
    // a sequence.
    int affine(int x, const Matrix& w, const float* b, std::int64_t blocks);
    int elman(int x, int lengths, const RecurrentWeights& weights, Activation activation, int h);
    int lstm(int x, int lengths, const RecurrentWeights& weights, const LstmWeights& more, int h, int c);
    int gru(int x, int lengths, const RecurrentWeights& weights, const float* b_hn, int h);
    // Where w_x has no outputs, x are the sums of the gates.
    int diagonal(int x, int lengths, Diagonal law, const Matrix& w_x, const float* b, const float* rates, int h);
    int add(int a, int b);
    int join(const std::vector<int>& parts);
    int take(int x, int index);

    // Operations of records; see records.cpp.
    int spread(int x);
    int elapsed(int times, int clock);
    int waited(int x, int elapsed, double unit);
    int embed(int codes, std::int64_t column, const Matrix& table);
    int observed(int x, int times, const std::vector<std::int64_t>& gaps, double unit, int last_seen);
    int mean(int x, int ends, int total, int count);

    // Operations of a forecast; see forecast.cpp.
    struct Segmented {
        int inputs;         // u, float32 [N, C, I], in the order of the chains; or [M, C, n, I], read anew
        int lengths;        // of the chains, int64 [B, C * k]; or [M, C], all of them n
        int place;          // where among these steps each wanted one lies, int64 [M, C]
        int scaled;         // z, float32 [M, C, L]
        int level, spread;  // a and s, float64 [M, C]; a is NaN before any value was observed
    };
    struct ForecastStates {
        int ring, seen, gap, age, taken;
    };
    // What is usual in the training series, for each column: their spread in units of their level, and the least spread.
    struct Usual {
        std::vector<double> relative, least;
    };
    // How a series is read.
    struct Reading {
        std::int64_t segment;  // k
        std::int64_t anew;     // the n segments of the look-back at every wanted step; 0: the last one, at every step
        bool gaps;
        bool from_mean;        // a is the mean of the look-back instead of the last value
    };
    Segmented segments(int values, int features, int wanted, const Reading& how, const ForecastStates& states,
                       const Usual& usual);
    int mean_of(const std::vector<int>& parts);
    int tanh_of_sums(int per_series, int per_step);
    int rescale(const Segmented& past, int change, std::int64_t horizon, const std::vector<double>& shift,
                std::int64_t middle);

    // About how many multiply-adds so many steps are.
    double work(std::int64_t steps) const {
        return static_cast<double>(steps) * static_cast<double>(products_ * repeated_);
    }

    // Runs all operations. The memory of inputs, outputs and states stands in `memory` [slots]; the rest, null, is
    // found here. Lengths that are null mean one step for every sequence.
    void run(const std::array<std::int64_t, 4>& counts, std::vector<void*>& memory, int threads) const;

  private:
    struct Workspace {
        Aligned<std::byte> memory;
        std::size_t size = 0;
    };

    int slot(const std::string& name, Type type, char rows, const std::vector<std::int64_t>& axes);
    int like(int other, const std::string& name, std::int64_t last, Type type = Type::f32);
    std::int64_t last_axis(int slot) const;
    StateSlots& slots_of(int state);
    int changed(int state);  // the slot that an operation writes a new state to
    Weights packed(const Matrix& matrix, std::int64_t gates, std::int64_t blocks = 1);
    Recurrent recurrent(int x, int lengths, const RecurrentWeights& weights, const Matrix& w_h, std::int64_t gates,
                        int h, int y);
    float* memory_of_weights(std::size_t bytes);
    const float* kept(const float* values, std::int64_t size);
    Workspace borrow(std::size_t size) const;
    void give_back(Workspace&& workspace) const;

    std::vector<Slot> slots_;
    std::vector<int> inputs_, outputs_;
    std::vector<StateSlots> states_, fresh_;
    std::vector<std::function<void(const Run&)>> operations_;
    std::vector<Aligned<std::byte>> weights_;
    void* large_ = nullptr;  // where large pages have room
    std::size_t large_left_ = 0;
    std::int64_t products_ = 0;  // of one step, each of its products made once
    std::int64_t repeated_ = 1;  // how often a step makes them: for every series, and every segment read anew
    mutable std::mutex lock_;
    mutable std::vector<Workspace> free_;
};

}  // namespace segue
