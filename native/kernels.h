// What the C interface and the kernels share, of which there is one set for each instruction set.
//
// This is data only: a function in a header, compiled for one of them, could be linked in another's place.

#pragma once

#include <atomic>
#include <cstdint>

// What a call is about. native.py has the same structure, field by field.
struct Problem {
    const void* z;  // row i lies at (i / inner) * outer_stride + (i % inner) * inner_stride; its classes lie
                    // class_stride apart, side by side unless rows do (inner_stride is 1 then; see columns.h)
    int64_t dtype;  // 0 float, 1 double, 2 bfloat16, 3 float16
    int64_t rows, inner, outer_stride, inner_stride, class_stride, classes;
    const int64_t* target;  // class indices, or null
    const void* soft;       // rows x classes class probabilities, or null
    const bool* counted;    // whether a row counts; null: all do
    const void* prior;      // null: uniform
    int64_t prior_stride;   // between the priors of two classes, or rows; 0: one for all
    int64_t prior_by_row;
    const void* weight;     // of the classes, or null
    int64_t exclude_target;
    double margin;  // of the hinge; NaN: there is none
    int64_t squared, spread;
    int64_t plain;  // no class probabilities, one prior for all, no class left out of it, no bend
    int64_t threads;
};

namespace labelsmooth {

struct Forward {
    const Problem& p;
    void* statistics;  // 10 x rows, in the order of RowStatistics
    std::atomic<int64_t> bad{-1};
};

struct Backward {
    const Problem& p;
    const void* statistics;  // 10 x rows
    const void* grad;        // 5 x rows: by lse, target_z, prior_z, hinge and model_z
    void* out;               // rows x classes; may be z itself
};

struct Uniform {
    const Problem& p;
    int64_t ignore_index;
    double eps;
    void* saved;  // 5 x rows: lse, z_max, number of valid classes, loss, nll
    std::atomic<bool> bad{false};
    double scale = 0;  // of the gradient
    void* out = nullptr;
};

using Rows = void (*)(void* call, int64_t begin, int64_t end);

// By dtype.
struct Kernels {
    Rows forward[4], backward[4], uniform_forward[4], uniform_backward[4];
    void (*total[4])(const Uniform& call, double* result);
};

// In a namespace of its own for each instruction set.
namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace labelsmooth
