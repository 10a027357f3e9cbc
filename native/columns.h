// Tiles of rows, computed side by side and class by class, so that vectors are long even with few classes.
// The rows are the adjacent pixels of a segmentation map, or rows of few classes, which are transposed.
//
// Class probabilities, priors per row or class, and bends are not supported here.

#pragma once

#include <algorithm>

#include "row.h"

namespace labelsmooth {
namespace {

constexpr int64_t tile = 128;
constexpr int64_t few = 24;  // the largest number of classes for which rows are transposed

// Whether rows are computed in tiles, which is required if the classes of a row are not adjacent.
INLINE bool in_tiles(const Problem& p) {
    return p.class_stride != 1 || (p.plain && p.classes <= few && p.rows >= tile);
}

// Calls f(first row, number of rows, logits of the first row, stride of the classes) for each tile of rows.
template <typename Z, typename F>
INLINE void for_each_tile(const Problem& p, int64_t begin, int64_t end, F&& f) {
    Z turned[few * tile];
    for (int64_t i = begin, n; i < end; i += n) {
        const bool turn = p.class_stride == 1;
        const int64_t left = turn ? end : i + p.inner - i % p.inner;
        n = (left < end ? left : end) - i;
        if (n > tile) n = tile;
        const Z* z = row_of<Z>(p, i);
        if (turn) {
            for (int64_t j = 0; j < n; ++j) {
                const Z* row = row_of<Z>(p, i + j);
                for (int64_t k = 0; k < p.classes; ++k) turned[k * tile + j] = row[k];
            }
            z = turned;
        }
        f(i, n, z, turn ? tile : p.class_stride);
    }
}

// The sums of row.h for each row of a tile. lse is NaN if a logit is NaN or all classes are masked.
template <typename R>
struct TileSums {
    R max[tile], mass[tile], weighted[tile];
    R lse[tile];  // the logarithm of the sum of exp
    R dot[tile];  // divided by the mass: the mean over the prior
};

template <typename Z, typename R>
INLINE void sums_of(TileSums<R>& s, const Z* z, int64_t n, int64_t classes, int64_t stride, const Vectors<R>& vectors) {
    // The exponentials are summed in groups: added one by one to a sum of at least 1, each would be rounded.
    constexpr int64_t together = 16;
    R buffer[tile], exp[tile], part[tile];
    for (int64_t j = 0; j < n; ++j) {
        s.max[j] = -inf<R>;
        exp[j] = s.mass[j] = s.weighted[j] = s.dot[j] = 0;
    }
    for (int64_t k = 0; k < classes; ++k) {
        const R* x = load(z + k * stride, n, buffer);
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) s.max[j] = x[j] > s.max[j] ? x[j] : s.max[j];
    }
    for (int64_t first = 0; first < classes; first += together) {
        for (int64_t j = 0; j < n; ++j) part[j] = 0;
        for (int64_t k = first; k < std::min(first + together, classes); ++k) {
            const R* x = load(z + k * stride, n, buffer);
            const R prior = vectors.prior_at(k), weighted = prior * vectors.weight_at(k);
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) {
                const R d = x[j] - s.max[j];
                const bool valid = x[j] > -inf<R>;
                part[j] += exp_nonpositive(d);
                s.mass[j] += valid ? prior : R(0);
                s.weighted[j] += valid ? weighted : R(0);
                s.dot[j] += valid ? weighted * d : R(0);
            }
        }
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) exp[j] += part[j];
    }
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) s.lse[j] = log_positive(exp[j]);
    for (int64_t j = 0; j < n; ++j) {
        double dot = s.dot[j];
        if (s.dot[j] == -inf<R>) {  // a sum over several logits of finfo.min overflows
            dot = 0;
            for (int64_t k = 0; k < classes; ++k) {
                const R x = one(z[k * stride + j]);
                const double weighted = double(vectors.prior_at(k) * vectors.weight_at(k));
                if (x > -inf<R>) dot += weighted * (double(x) - double(s.max[j]));
            }
        }
        s.dot[j] = R(dot / s.mass[j]);
    }
}

// The gradient of each row is of_exp * exp(z - max) + of_prior * prior, and of_exp * exp(z - max) + at_target
// at class y. y is none for a row without a target here, and dead for a row without a gradient.
template <typename R>
struct TileCoefficients {
    static constexpr R none = -1, dead = -2;
    R max[tile], of_exp[tile], of_prior[tile], at_target[tile], y[tile];
};

template <typename Z, typename R>
INLINE void write(const Problem& p, void* gradient, int64_t i, int64_t n, const Z* z, int64_t stride,
                  const Vectors<R>& vectors, const TileCoefficients<R>& c) {
    R buffer[tile], g[tile];
    // The gradient has the layout of the logits.
    const bool turned = p.class_stride == 1;
    Z* out = static_cast<Z*>(gradient) + (turned ? i * p.classes : row_of<Z>(p, i) - static_cast<const Z*>(p.z));
    for (int64_t k = 0; k < p.classes; ++k, out += p.class_stride) {
        const R* x = load(z + k * stride, n, buffer);
        const R weighted = vectors.prior_at(k) * vectors.weight_at(k);
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) {
            const R of_prior = x[j] == -inf<R> ? R(0) : c.of_prior[j] * weighted;
            const R value = c.of_exp[j] * exp_nonpositive(x[j] - c.max[j]) + (c.y[j] == R(k) ? c.at_target[j] : of_prior);
            g[j] = c.y[j] == TileCoefficients<R>::dead ? R(0) : value;
        }
        if (turned) {
            for (int64_t j = 0; j < n; ++j) put(g[j], out[j * p.classes]);
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; ++j) put(g[j], out[j]);
        }
    }
}

}  // namespace
}  // namespace labelsmooth
