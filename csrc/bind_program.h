#pragma once

#include <nanobind/nanobind.h>

// Adds the class Program to the native module.
void bind_program(nanobind::module_& m);
