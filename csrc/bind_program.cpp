// Programs for Python. Arrays come in by the buffer protocol and go out as arrays of NumPy, which for a single step of
// a small layer is much quicker than anything more general. Every check of a call is made here.
#include "bind_program.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "program.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using segue::Slot;
using segue::Type;
using std::int64_t;

using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = std::optional<Row>;
using Axes = std::vector<int64_t>;

segue::Matrix matrix(const Table& w) {
    return {static_cast<int64_t>(w.shape(0)), static_cast<int64_t>(w.shape(1)), w.data()};
}

segue::Matrix matrix(const std::optional<Table>& w) {
    return w ? matrix(*w) : segue::Matrix{};
}

const float* row(const Rows& values) {
    return values ? values->data() : nullptr;
}

Type type_of(char letter) {
    return letter == 'f' ? Type::f32 : letter == 'd' ? Type::f64 : Type::i64;
}

const char* name_of(Type type) {
    return type == Type::f32 ? "float32" : type == Type::f64 ? "float64" : "int64";
}

bool is_type(const char* format, Type type) {
    if (!format || !format[0] || format[1]) return false;
    if (type == Type::i64) return format[0] == 'q' || (format[0] == 'l' && sizeof(long) == 8);
    return format[0] == (type == Type::f32 ? 'f' : 'd');
}

std::string wanted(const Slot& slot, int64_t count) {
    std::string text = std::string(name_of(slot.type)) + " [" + slot.rows;
    if (count >= 0) text += "=" + std::to_string(count);
    for (const int64_t axis : slot.axes) text += ", " + std::to_string(axis);
    return text + "]";
}

// The memory of an array while a call runs.
class Held {
  public:
    static constexpr int kShown = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT, kPlain = PyBUF_SIMPLE;

    // Of an array that was made here its type and shape, which take time to ask for, are known.
    explicit Held(nb::handle array, int flags = kShown) {
        if (PyObject_GetBuffer(array.ptr(), &view_, flags) != 0) {
            PyErr_Clear();
            view_.obj = nullptr;
        }
    }
    Held(const Held&) = delete;
    Held(Held&& other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
    ~Held() {
        if (view_.obj) PyBuffer_Release(&view_);
    }

    // The count of its rows; -1 where it is not an array of this slot.
    int64_t rows(const Slot& slot) const {
        if (!view_.obj || !is_type(view_.format, slot.type)) return -1;
        if (view_.ndim != static_cast<int>(slot.axes.size()) + 1) return -1;
        for (std::size_t k = 0; k < slot.axes.size(); ++k)
            if (view_.shape[k + 1] != slot.axes[k]) return -1;
        return view_.shape[0];
    }

    void* memory() const { return view_.buf; }

    std::string shown(nb::handle array) const {
        if (!view_.obj)
            return std::string(Py_TYPE(array.ptr())->tp_name) + " that is no contiguous array in the memory of the CPU";
        std::string text = view_.format ? view_.format : "bytes";
        for (const Type type : {Type::f32, Type::f64, Type::i64})
            if (is_type(view_.format, type)) text = name_of(type);
        text += " [";
        for (int k = 0; k < view_.ndim; ++k) text += (k ? ", " : "") + std::to_string(view_.shape[k]);
        return text + "]";
    }

  private:
    Py_buffer view_{};
};

constexpr double kShortWork = 1e6;  // multiply-adds of some tens of microseconds

// A program with what it takes of Python.
class Program : public segue::Program {
  public:
    Program() {
        const nb::module_ numpy = nb::module_::import_("numpy");
        empty_ = numpy.attr("empty");
        for (const Type type : {Type::f32, Type::f64, Type::i64})
            types_[static_cast<int>(type)] = numpy.attr("dtype")(name_of(type));
        error_ = nb::module_::import_("segue.errors").attr("ShapeError");
    }

    // The states after come as a tuple of this type.
    void set_row(nb::type_object row) {
        if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(row.ptr()), &PyTuple_Type))
            refuse("row", "a kind of tuple", nb::str(row).c_str(), "pass the type of the state");
        row_ = std::move(row);
    }

    // (outputs, states after) of (lengths or None, inputs, states before).
    nb::tuple call(nb::handle lengths, const nb::tuple& inputs, nb::handle given, int threads) const {
        const nb::tuple states = tuple(given);
        Call call(*this, lengths, PySequence_Fast_ITEMS(inputs.ptr()), inputs.size(), states);
        nb::object made = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(outputs().size())));
        for (std::size_t k = 0; k < outputs().size(); ++k)
            PyTuple_SET_ITEM(made.ptr(), static_cast<Py_ssize_t>(k), call.write(outputs()[k]).release().ptr());
        return call.finish(made, states, threads);
    }

    // (y, states after) of a step of a program with one output.
    nb::tuple step(nb::handle x, nb::handle given, int threads) const {
        const nb::tuple states = tuple(given);
        PyObject* const input = x.ptr();
        Call call(*this, nb::none(), &input, 1, states);
        return call.finish(call.write(outputs().front()), states, threads);
    }

  private:
    nb::tuple tuple(nb::handle given) const {
        if (PyTuple_Check(given.ptr())) return nb::borrow<nb::tuple>(given);
        refuse("state", "a tuple of arrays", Py_TYPE(given.ptr())->tp_name,
               "take it from initial_state or from an earlier step");
    }

    struct Call {
        const Program& program;
        std::array<int64_t, 4> counts{-1, -1, -1, -1};
        std::vector<void*> memory;
        std::vector<Held> held;

        // Reads what is given.
        Call(const Program& program_, nb::handle lengths, PyObject* const* inputs, std::size_t count,
             const nb::tuple& states)
            : program(program_), memory(program_.slots().size()) {
            program.check_count("inputs", program.inputs().size(), count);
            program.check_count("state", program.states().size(), states.size());
            held.reserve(1 + count + program.outputs().size() + 2 * states.size());
            if (!lengths.is_none()) read(kLengths, lengths);
            for (std::size_t k = 0; k < count; ++k) read(program.inputs()[k], inputs[k]);
            settle(lengths.is_none());
            for (std::size_t k = 0; k < states.size(); ++k) read(program.states()[k].before, states[k]);
        }

        // Runs the program: (what was made for the outputs, states after).
        nb::tuple finish(nb::handle made, const nb::tuple& states, int threads) {
            nb::object after = program.new_row(static_cast<Py_ssize_t>(states.size()));
            for (std::size_t k = 0; k < states.size(); ++k) {
                const int slot = program.states()[k].after;
                nb::object one = slot < 0 ? nb::borrow(states[k]) : write(slot);
                PyTuple_SET_ITEM(after.ptr(), static_cast<Py_ssize_t>(k), one.release().ptr());
            }
            // Who lets the others run for a few microseconds may get the interpreter back after milliseconds.
            if (program.work(counts[0]) < kShortWork) {
                program.run(counts, memory, threads);
            } else {
                nb::gil_scoped_release release;
                program.run(counts, memory, threads);
            }
            return nb::make_tuple(made, after);
        }

        int64_t& count(const Slot& slot) {
            return counts[slot.rows == 'N' ? 0 : slot.rows == 'B' ? 1 : slot.rows == 'M' ? 2 : 3];
        }

        void read(int place, nb::handle array) {
            const Slot& slot = program.slots()[place];
            held.emplace_back(array);
            const int64_t rows = held.back().rows(slot);
            int64_t& known = count(slot);
            if (rows < 0 || (known >= 0 && rows != known))
                program.refuse(slot.name, wanted(slot, known), held.back().shown(array),
                               "pass a contiguous array of this type and shape");
            known = rows;
            memory[place] = held.back().memory();
        }

        // When the inputs are read: how many steps every sequence has, and that places lie within the steps.
        void settle(bool are_steps) {
            int64_t& steps = counts[0];
            if (steps < 0) steps = 0;
            if (are_steps) {
                counts[1] = steps;
            } else {
                const auto* lengths = static_cast<const int64_t*>(memory[kLengths]);
                int64_t sum = 0;
                for (int64_t s = 0; s < counts[1]; ++s)
                    sum = lengths[s] < 0 || sum < 0 ? -1 : sum + lengths[s];
                if (sum != steps)
                    program.refuse("lengths", "numbers from 0 on that sum to N=" + std::to_string(steps),
                                   sum < 0 ? "one below 0" : "the sum " + std::to_string(sum),
                                   "count the steps of each sequence");
            }
            for (const int place : program.inputs()) {
                const Slot& slot = program.slots()[place];
                if (slot.type != Type::i64 || !slot.axes.empty() || slot.rows == 'N' || slot.rows == 'B') continue;
                const auto* at = static_cast<const int64_t*>(memory[place]);
                int64_t last = -1;
                for (int64_t m = 0; m < count(slot); ++m) {
                    if (at[m] >= 0 && (at[m] <= last || at[m] >= steps))
                        program.refuse(slot.name, "rising places below N=" + std::to_string(steps),
                                       std::to_string(at[m]), "sort them");
                    last = std::max(last, at[m]);
                }
            }
        }

        nb::object write(int place) {
            const Slot& slot = program.slots()[place];
            nb::object shape = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(slot.axes.size()) + 1));
            PyTuple_SET_ITEM(shape.ptr(), 0, PyLong_FromLongLong(std::max<int64_t>(count(slot), 0)));
            for (std::size_t k = 0; k < slot.axes.size(); ++k)
                PyTuple_SET_ITEM(shape.ptr(), static_cast<Py_ssize_t>(k) + 1, PyLong_FromLongLong(slot.axes[k]));
            PyObject* arguments[] = {shape.ptr(), program.types_[static_cast<int>(slot.type)].ptr()};
            nb::object array = nb::steal(PyObject_Vectorcall(program.empty_.ptr(), arguments, 2, nullptr));
            if (!array.is_valid()) throw nb::python_error();
            held.emplace_back(array, Held::kPlain);
            memory[place] = held.back().memory();
            return array;
        }
    };

    nb::object new_row(Py_ssize_t size) const {
        auto* const type = reinterpret_cast<PyTypeObject*>(row_.ptr());
        return nb::steal(type == &PyTuple_Type ? PyTuple_New(size) : type->tp_alloc(type, size));
    }

    void check_count(const char* what, std::size_t expected, std::size_t got) const {
        if (expected != got)
            refuse(what, std::to_string(expected) + " arrays", std::to_string(got), "pass one for each");
    }

    [[noreturn]] void refuse(const std::string& where, const std::string& expected, const std::string& got,
                             const std::string& fix) const {
        PyErr_SetObject(error_.ptr(), error_(where, expected, got, fix).ptr());
        throw nb::python_error();
    }

    nb::object empty_, types_[3], error_, row_ = nb::borrow(reinterpret_cast<PyObject*>(&PyTuple_Type));
};

int input(Program& self, const std::string& name, char type, char rows, const Axes& axes) {
    return self.input(name, type_of(type), rows, axes);
}

int state(Program& self, const std::string& name, char type, const Axes& axes) {
    return self.state(name, type_of(type), axes);
}

segue::RecurrentWeights recurrent(const Table& w_x, const Row& b, const Table& w_h, const Rows& gain_x,
                                  const Rows& gain_h, float zoneout) {
    return {matrix(w_x), b.data(), matrix(w_h), row(gain_x), row(gain_h), zoneout};
}

int affine(Program& self, int x, const Table& w, const Rows& b) {
    return self.affine(x, matrix(w), row(b));
}

int elman(Program& self, int x, int lengths, int h, const Table& w_x, const Row& b, const Table& w_h, int activation,
          const Rows& gain_x, const Rows& gain_h, float zoneout_h) {
    return self.elman(x, lengths, recurrent(w_x, b, w_h, gain_x, gain_h, zoneout_h),
                      static_cast<segue::Activation>(activation), h);
}

int lstm(Program& self, int x, int lengths, int h, int c, const Table& w_x, const Row& b, const Table& w_h,
         const std::optional<Table>& w_r, const Rows& peepholes, const Rows& gain_x, const Rows& gain_h,
         const Rows& gain_c,
         const Rows& bias_c, float zoneout_h, float zoneout_c) {
    return self.lstm(x, lengths, recurrent(w_x, b, w_h, gain_x, gain_h, zoneout_h),
                     {row(peepholes), matrix(w_r), row(gain_c), row(bias_c), zoneout_c}, h, c);
}

int gru(Program& self, int x, int lengths, int h, const Table& w_x, const Row& b, const Table& w_h, const Rows& b_hn,
        const Rows& gain_x, const Rows& gain_h, float zoneout_h) {
    return self.gru(x, lengths, recurrent(w_x, b, w_h, gain_x, gain_h, zoneout_h), row(b_hn), h);
}

int embed(Program& self, int codes, int64_t column, const Table& table) {
    return self.embed(codes, column, matrix(table));
}

int observed(Program& self, int x, int times, const Axes& gaps, double unit, int last_seen) {
    return self.observed(x, times, gaps, unit, last_seen);
}

}  // namespace

void bind_program(nb::module_& m) {
    using Segmented = segue::Program::Segmented;
    nb::class_<Segmented>(m, "Segmented")
        .def_ro("inputs", &Segmented::inputs)
        .def_ro("lengths", &Segmented::lengths)
        .def_ro("place", &Segmented::place)
        .def_ro("scaled", &Segmented::scaled);
    nb::class_<segue::Program>(m, "Operations")
        .def("output", &segue::Program::output, "slot"_a)
        .def("last_axis", [](const segue::Program& self, int slot) { return self.slots()[slot].axes.back(); }, "slot"_a)
        .def("add", &segue::Program::add, "a"_a, "b"_a)
        .def("join", &segue::Program::join, "parts"_a)
        .def("take", &segue::Program::take, "x"_a, "index"_a)
        .def("spread", &segue::Program::spread, "x"_a)
        .def("elapsed", &segue::Program::elapsed, "times"_a, "clock"_a)
        .def("waited", &segue::Program::waited, "x"_a, "elapsed"_a, "unit"_a)
        .def("mean", &segue::Program::mean, "x"_a, "ends"_a, "total"_a, "count"_a)
        .def(
            "segments",
            [](segue::Program& self, int values, int features, int wanted, bool gaps, std::array<int, 4> states) {
                return self.segments(values, features, wanted, gaps, {states[0], states[1], states[2], states[3]});
            },
            "values"_a, "features"_a, "wanted"_a, "gaps"_a, "states"_a)
        .def("tanh_of_sums", &segue::Program::tanh_of_sums, "per_series"_a, "per_step"_a)
        .def("rescale", &segue::Program::rescale, "past"_a, "change"_a, "horizon"_a);
    nb::class_<Program, segue::Program>(m, "Program")
        .def(nb::init<>())
        .def("input", &input, "name"_a, "type"_a, "rows"_a, "axes"_a)
        .def("state", &state, "name"_a, "type"_a, "axes"_a)
        .def("affine", &affine, "x"_a, "w"_a, "b"_a.none())
        .def("elman", &elman, "x"_a, "lengths"_a, "h"_a, "w_x"_a, "b"_a, "w_h"_a, "activation"_a,
             "gain_x"_a.none(), "gain_h"_a.none(), "zoneout_h"_a)
        .def("lstm", &lstm, "x"_a, "lengths"_a, "h"_a, "c"_a, "w_x"_a, "b"_a, "w_h"_a, "w_r"_a.none(),
             "peepholes"_a.none(), "gain_x"_a.none(), "gain_h"_a.none(), "gain_c"_a.none(), "bias_c"_a.none(),
             "zoneout_h"_a, "zoneout_c"_a)
        .def("gru", &gru, "x"_a, "lengths"_a, "h"_a, "w_x"_a, "b"_a, "w_h"_a, "b_hn"_a.none(),
             "gain_x"_a.none(), "gain_h"_a.none(), "zoneout_h"_a)
        .def("embed", &embed, "codes"_a, "column"_a, "table"_a)
        .def("observed", &observed, "x"_a, "times"_a, "gaps"_a, "unit"_a, "last_seen"_a)
        .def("set_row", &Program::set_row, "row"_a)
        .def("step", &Program::step)  // names of arguments would cost a short step a hundredth of its time
        .def("__call__", &Program::call, "lengths"_a.none(), "inputs"_a, "states"_a, "threads"_a);
}
