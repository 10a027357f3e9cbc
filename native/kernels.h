// The data that the C interface shares with the kernels, which are compiled for several instruction sets.
//
// There are no functions here: one compiled for one instruction set could be linked in place of another's.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

// The names that Python and C++ share. native.py refuses a library with other names or another order.
#define LABELSMOOTH_DTYPES float32, float64, bfloat16, float16
#define LABELSMOOTH_GRADIENT lse, target_z, prior_z, hinge, model_z
#define LABELSMOOTH_STATISTICS LABELSMOOTH_GRADIENT, target_mass, prior_mass, valid_mass, z_max, slope
#define LABELSMOOTH_SAVED lse, z_max, valid, loss, nll
#define LABELSMOOTH_FACTORS nll, prior, hinge, entropy

// The arguments of a call. native.py has the same structure, field by field.
struct Problem {
    const void* z;  // row i starts at (i / inner) * outer_stride + (i % inner) * inner_stride; its classes
                    // are class_stride apart: 1, unless rows are adjacent (inner_stride 1; see columns.h)
    int64_t dtype;  // of Dtype
    int64_t rows, inner, outer_stride, inner_stride, class_stride, classes;
    const int64_t* target;  // rows x labels class indices, or null
    int64_t labels;         // the number of labels of a row, at most most_labels
    const void* shares;     // rows x labels shares of the target; null: each row has one label
    const void* soft;       // rows x classes class probabilities, or null
    const bool* counted;    // false for ignored rows; null: no row is ignored
    const void* prior;      // null: uniform
    int64_t prior_stride;   // between the priors of two classes or rows; 0: one prior for all rows
    int64_t prior_by_row;
    const void* weight;     // of the classes, or null
    int64_t exclude_target;
    double margin;  // of the hinge; NaN: no hinge
    int64_t squared, spread;
    int64_t plain;  // one label per row, one prior for all rows that includes the target class, no bend
    int64_t threads;
};

// Losses per row that are linear in the statistics, except for a squared lse. The factor of a term is a
// number, or one per row where each is not null. native.py has the same structure, field by field.
struct Terms {
    int64_t dtype, rows;
    double factor[4];  // of Factors
    const void* each[4];
    const void* scale;     // each row's factor
    double z_loss;         // the factor of the squared lse
    int64_t z_by_target;   // whether the squared lse is weighted by the target's mass
    int64_t threads;
};

namespace labelsmooth {

constexpr int64_t most_labels = 8;
constexpr int64_t absent = std::numeric_limits<int64_t>::min();  // the target class is in another shard

struct Dtype {
    enum : int64_t { LABELSMOOTH_DTYPES, count };
};

// The statistics of a row, as in statistics.py. T is a number, or a pointer to the numbers of all rows.
template <typename T>
struct Statistics {
    T LABELSMOOTH_STATISTICS;
};

// The gradient with respect to the differentiable statistics.
template <typename T>
struct Gradient {
    T LABELSMOOTH_GRADIENT;
};

// The numbers that the plain loss saves of a row; valid is the number of valid classes.
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

struct Losses {
    const Terms& t;
    const void* statistics;  // a table of Statistics
    void* out;               // the loss of each row, or a table of Gradient
};

// A linear loss and its gradient, one after the other for each block of rows.
struct AtOnce {
    Forward forward;
    Losses losses, gradient;
    Backward backward;
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

// Memory for so many numbers, which the thread reuses; null if that is too many to keep.
float* thread_memory(int64_t numbers);

using Rows = void (*)(void* call, int64_t begin, int64_t end);

// The kernels of an instruction set, by dtype.
struct Kernels {
    size_t size[Dtype::count];  // in bytes
    Rows forward[Dtype::count], backward[Dtype::count];
    Rows uniform_forward[Dtype::count], uniform_backward[Dtype::count], uniform_both[Dtype::count];
    Rows losses[Dtype::count], gradient[Dtype::count], at_once[Dtype::count];
    void (*total[Dtype::count])(const Uniform& call, double* result);
};

// Each instruction set has its own namespace.
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
