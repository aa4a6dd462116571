// Programs for Python. Arrays come in and go out by NumPy's own interface for C, which for a single step of a small
// layer is much quicker than anything more general. Every check of a call is made here.
#include "bind_program.h"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

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

int number_of(Type type) {
    return type == Type::f32 ? NPY_FLOAT32 : type == Type::f64 ? NPY_FLOAT64 : NPY_INT64;
}

bool is_type(PyArrayObject* array, Type type) {
    const int number = PyArray_TYPE(array);
    // Two of C's types may have the 64 bits.
    return number == number_of(type) || (type == Type::i64 && number == NPY_LONGLONG && sizeof(npy_longlong) == 8);
}

std::string wanted(const Slot& slot, int64_t count) {
    std::string text = std::string(name_of(slot.type)) + " [" + slot.rows;
    if (count >= 0) text += "=" + std::to_string(count);
    for (const int64_t axis : slot.axes) text += ", " + std::to_string(axis);
    return text + "]";
}

// An array of NumPy that can be read as it lies in memory; else null.
PyArrayObject* plain_array(nb::handle array) {
    if (!PyArray_Check(array.ptr())) return nullptr;
    auto* const found = reinterpret_cast<PyArrayObject*>(array.ptr());
    return PyArray_IS_C_CONTIGUOUS(found) && PyArray_ISBEHAVED_RO(found) ? found : nullptr;
}

// The count of its rows; -1 where it is not an array of this slot.
int64_t rows_of(nb::handle given, const Slot& slot) {
    PyArrayObject* const array = plain_array(given);
    const auto axes = static_cast<int>(slot.axes.size());
    if (!array || !is_type(array, slot.type) || PyArray_NDIM(array) != axes + 1) return -1;
    for (int k = 0; k < axes; ++k)
        if (PyArray_DIM(array, k + 1) != slot.axes[k]) return -1;
    return PyArray_DIM(array, 0);
}

std::string shown(nb::handle given) {
    PyArrayObject* const array = plain_array(given);
    if (!array)
        return std::string(Py_TYPE(given.ptr())->tp_name) + " that is no contiguous array in the memory of the CPU";
    const nb::object dtype = given.attr("dtype");
    std::string text = nb::str(dtype).c_str();
    text += " [";
    for (int k = 0; k < PyArray_NDIM(array); ++k) text += (k ? ", " : "") + std::to_string(PyArray_DIM(array, k));
    return text + "]";
}

constexpr double kShortWork = 1e6;  // multiply-adds of some tens of microseconds

// A program with what it takes of Python.
class Program : public segue::Program {
  public:
    Program() {
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

        // Reads what is given.
        Call(const Program& program_, nb::handle lengths, PyObject* const* inputs, std::size_t count,
             const nb::tuple& states)
            : program(program_), memory(program_.slots().size()) {
            program.check_count("inputs", program.inputs().size(), count);
            program.check_count("state", program.states().size(), states.size());
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
            const int64_t rows = rows_of(array, slot);
            int64_t& known = count(slot);
            if (rows < 0 || (known >= 0 && rows != known))
                program.refuse(slot.name, wanted(slot, known), shown(array),
                               "pass a contiguous array of this type and shape");
            known = rows;
            memory[place] = PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr()));
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
            const auto axes = static_cast<int>(slot.axes.size());
            npy_intp shape[NPY_MAXDIMS];
            shape[0] = std::max<int64_t>(count(slot), 0);
            std::copy(slot.axes.begin(), slot.axes.end(), shape + 1);
            nb::object array = nb::steal(PyArray_SimpleNew(axes + 1, shape, number_of(slot.type)));
            if (!array.is_valid()) throw nb::python_error();
            memory[place] = PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr()));
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

    nb::object error_, row_ = nb::borrow(reinterpret_cast<PyObject*>(&PyTuple_Type));
};

int input(Program& self, const std::string& name, char type, char rows, const Axes& axes) {
    return self.input(name, type_of(type), rows, axes);
}

int state(Program& self, const std::string& name, char type, const Axes& axes) {
    return self.state(name, type_of(type), axes);
}

int fresh(Program& self, const std::string& name, char rows, const Axes& axes, const Row& first) {
    return self.fresh(name, rows, axes, first.data(), static_cast<int64_t>(first.size()));
}

segue::RecurrentWeights recurrent(const Table& w_x, const Row& b, const Table& w_h, const Rows& gain_x,
                                  const Rows& gain_h, float zoneout) {
    return {matrix(w_x), b.data(), matrix(w_h), row(gain_x), row(gain_h), zoneout};
}

int affine(Program& self, int x, const Table& w, const Rows& b, std::int64_t blocks) {
    return self.affine(x, matrix(w), row(b), blocks);
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

int diagonal(Program& self, int x, int lengths, int h, int law, const std::optional<Table>& w_x, const Rows& b,
             const Rows& rates) {
    return self.diagonal(x, lengths, static_cast<segue::Diagonal>(law), matrix(w_x), row(b), row(rates), h);
}

int embed(Program& self, int codes, int64_t column, const Table& table) {
    return self.embed(codes, column, matrix(table));
}

int observed(Program& self, int x, int times, const Axes& gaps, double unit, int last_seen) {
    return self.observed(x, times, gaps, unit, last_seen);
}

}  // namespace

void bind_program(nb::module_& m) {
    if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
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
            [](segue::Program& self, int values, int features, int wanted, int64_t segment, int64_t anew, bool gaps,
               bool from_mean, std::array<int, 5> states, std::array<std::vector<double>, 2> usual) {
                return self.segments(values, features, wanted, {segment, anew, gaps, from_mean},
                                     {states[0], states[1], states[2], states[3], states[4]}, {usual[0], usual[1]});
            },
            "values"_a, "features"_a, "wanted"_a, "segment"_a, "anew"_a, "gaps"_a, "from_mean"_a, "states"_a, "usual"_a)
        .def("mean_of", &segue::Program::mean_of, "parts"_a)
        .def("tanh_of_sums", &segue::Program::tanh_of_sums, "per_series"_a, "per_step"_a)
        .def("rescale", &segue::Program::rescale, "past"_a, "change"_a, "horizon"_a, "shift"_a, "middle"_a);
    nb::class_<Program, segue::Program>(m, "Program")
        .def(nb::init<>())
        .def("input", &input, "name"_a, "type"_a, "rows"_a, "axes"_a)
        .def("state", &state, "name"_a, "type"_a, "axes"_a)
        .def("fresh", &fresh, "name"_a, "rows"_a, "axes"_a, "first"_a)
        .def("affine", &affine, "x"_a, "w"_a, "b"_a.none(), "blocks"_a = 1)
        .def("elman", &elman, "x"_a, "lengths"_a, "h"_a, "w_x"_a, "b"_a, "w_h"_a, "activation"_a,
             "gain_x"_a.none(), "gain_h"_a.none(), "zoneout_h"_a)
        .def("lstm", &lstm, "x"_a, "lengths"_a, "h"_a, "c"_a, "w_x"_a, "b"_a, "w_h"_a, "w_r"_a.none(),
             "peepholes"_a.none(), "gain_x"_a.none(), "gain_h"_a.none(), "gain_c"_a.none(), "bias_c"_a.none(),
             "zoneout_h"_a, "zoneout_c"_a)
        .def("gru", &gru, "x"_a, "lengths"_a, "h"_a, "w_x"_a, "b"_a, "w_h"_a, "b_hn"_a.none(),
             "gain_x"_a.none(), "gain_h"_a.none(), "zoneout_h"_a)
        .def("diagonal", &diagonal, "x"_a, "lengths"_a, "h"_a, "law"_a, "w_x"_a.none(), "b"_a.none(), "rates"_a.none())
        .def("embed", &embed, "codes"_a, "column"_a, "table"_a)
        .def("observed", &observed, "x"_a, "times"_a, "gaps"_a, "unit"_a, "last_seen"_a)
        .def("set_row", &Program::set_row, "row"_a)
        .def("step", &Program::step)  // names of arguments would cost a short step a hundredth of its time
        .def("__call__", &Program::call, "lengths"_a.none(), "inputs"_a, "states"_a, "threads"_a);
}
