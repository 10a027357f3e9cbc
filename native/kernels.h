// What the C interface and the kernels share, of which there is one set for each instruction set.
//
// This is data only: a function in a header, compiled for one of them, could be linked in another's place.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

// The names of what Python and C++ share: native.py refuses a library that has others, or has them in another order.
#define LABELSMOOTH_DTYPES float32, float64, bfloat16, float16
#define LABELSMOOTH_GRADIENT lse, target_z, prior_z, hinge, model_z
#define LABELSMOOTH_STATISTICS LABELSMOOTH_GRADIENT, target_mass, prior_mass, valid_mass, z_max, slope
#define LABELSMOOTH_SAVED lse, z_max, valid, loss, nll
#define LABELSMOOTH_FACTORS nll, prior, hinge, entropy

// What a call is about. native.py has the same structure, field by field.
struct Problem {
    const void* z;  // row i lies at (i / inner) * outer_stride + (i % inner) * inner_stride; its classes lie
                    // class_stride apart, side by side unless rows do (inner_stride is 1 then; see columns.h)
    int64_t dtype;  // of Dtype
    int64_t rows, inner, outer_stride, inner_stride, class_stride, classes;
    const int64_t* target;  // rows x labels class indices, or null
    int64_t labels;         // of a row, at most most_labels
    const void* shares;     // rows x labels shares of the target; null: each row has one label
    const void* soft;       // rows x classes class probabilities, or null
    const bool* counted;    // whether a row counts; null: all do
    const void* prior;      // null: uniform
    int64_t prior_stride;   // between the priors of two classes, or rows; 0: one for all
    int64_t prior_by_row;
    const void* weight;     // of the classes, or null
    int64_t exclude_target;
    double margin;  // of the hinge; NaN: there is none
    int64_t squared, spread;
    int64_t plain;  // one label, one prior for all, no class left out of it, no bend
    int64_t threads;
};

// Losses of rows that are linear in their statistics: each term times its factor, which is a number or, where each is
// not null, one for each row; with a squared lse. native.py has the same structure, field by field.
struct Terms {
    int64_t dtype, rows;
    double factor[4];  // of Factors
    const void* each[4];
    const void* scale;     // of each row
    double z_loss;         // the factor of the squared lse
    int64_t z_by_target;   // whether that is weighted by the target's mass
    int64_t threads;
};

namespace labelsmooth {

constexpr int64_t most_labels = 8;
constexpr int64_t absent = std::numeric_limits<int64_t>::min();  // the target class is in another shard

struct Dtype {
    enum : int64_t { LABELSMOOTH_DTYPES, count };
};

// What is found in a row, as statistics.py explains it. T is a number, or a pointer to the numbers of all rows.
template <typename T>
struct Statistics {
    T LABELSMOOTH_STATISTICS;
};

// The gradient by those of the statistics that have one by the logits.
template <typename T>
struct Gradient {
    T LABELSMOOTH_GRADIENT;
};

// What the commonest loss keeps of a row; valid is the number of valid classes.
template <typename T>
struct Saved {
    T LABELSMOOTH_SAVED;
};

// The terms of a linear loss.
struct Factors {
    enum : int64_t { LABELSMOOTH_FACTORS, count };
};
static_assert(sizeof Terms{}.factor == Factors::count * sizeof(double));

struct Forward {
    const Problem& p;
    void* statistics;  // a table of Statistics, see tables.h
    std::atomic<int64_t> bad{-1};
};

struct Backward {
    const Problem& p;
    const void* statistics;  // a table of Statistics
    const void* grad;        // a table of Gradient
    void* out;               // rows x classes; may be z itself
};

struct Uniform {
    const Problem& p;
    int64_t ignore_index;
    double eps;
    void* saved;  // a table of Saved
    std::atomic<bool> bad{false};
    double scale = 0;  // of the gradient
    void* out = nullptr;
};

struct Losses {
    const Terms& t;
    const void* statistics;  // a table of Statistics
    void* out;               // a loss of each row, or a table of Gradient
};

using Rows = void (*)(void* call, int64_t begin, int64_t end);

// By dtype.
struct Kernels {
    size_t size[Dtype::count];  // in bytes
    Rows forward[Dtype::count], backward[Dtype::count], uniform_forward[Dtype::count], uniform_backward[Dtype::count];
    Rows losses[Dtype::count], gradient[Dtype::count];
    void (*total[Dtype::count])(const Uniform& call, double* result);
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
