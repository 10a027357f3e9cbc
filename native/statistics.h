// The statistics of rows; and the gradient with respect to the logits, given that by the statistics.

#pragma once

#include "columns.h"
#include "row.h"
#include "tables.h"

namespace labelsmooth {
namespace {

// Whether class k has all of the prior's mass.
template <typename Z, typename R, typename Mass>
INLINE bool only(int64_t k, const Vectors<R>& vectors, const Z* z, int64_t stride, Mass mass) {
    return k >= 0 && one(z[k * stride]) > -inf<R> && Mass(vectors.prior_at(k)) == mass;
}

// The class with all of the model's probability, or -1. If there is one, the lse of z - max is 0.
template <typename Z, typename R>
INLINE int64_t certain(const Z* z, int64_t classes, R max, R lse) {
    return lse == 0 ? first_with(max, z, classes) : -1;
}

template <typename Z>
INLINE void forward_tiles(Forward& call, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Vectors<R> vectors(p, 0);
    const R of_mass = R(vectors.prior ? 1.0 : 1.0 / double(p.classes));
    for_each_tile<Z>(p, begin, end, [&](int64_t i, int64_t n, const Z* z, int64_t stride) __attribute__((always_inline)) {
        TileSums<R> s;
        sums_of(s, z, n, p.classes, stride, vectors);
        R* out = static_cast<R*>(call.statistics) + i;
        for (int64_t j = 0; j < n; ++j) {
            Statistics<R> found{};
            if (!p.counted || p.counted[i + j]) {
                const int64_t y = p.target[i + j];
                if (y != absent && (y < 0 || y >= p.classes)) {
                    call.bad.store(i + j, std::memory_order_relaxed);
                    continue;
                }
                found.lse = s.lse[j];
                if (y != absent) {
                    found.target_mass = vectors.weight_at(y);
                    found.target_z = product(found.target_mass, one(z[y * stride + j]) - s.max[j]);
                }
                const R mass = of_mass * s.mass[j];
                const bool sizeable = !(mass < std::numeric_limits<R>::min());  // large enough to divide by
                const bool apart = sizeable && !only(y, vectors, z + j, stride, s.mass[j]);
                found.prior_z = apart ? s.dot[j] : found.target_z;
                found.prior_mass = apart ? s.weighted[j] / s.mass[j] : found.target_mass;
                found.valid_mass = sizeable ? mass : R(0);
                found.z_max = s.max[j];
            }
            store(found, out + j, p.rows);
        }
    });
}

// kept: where exp(z - max) of each class of these rows is written, or null. Tiles write none.
template <typename Z>
__attribute__((noinline)) void forward_rows(Forward& call, int64_t begin, int64_t end, Real<Z>* kept) {
    using R = Real<Z>;
    const Problem& p = call.p;
    if (in_tiles(p)) return forward_tiles<Z>(call, begin, end);
    R* out = static_cast<R*>(call.statistics);
    const Bend<R> bend(p);
    for (int64_t i = begin; i < end; ++i) {
        Statistics<R> found{};
        if (!p.counted || p.counted[i]) {
            const Labels<R> labels(p, i);
            if (!labels.proper(p.classes)) {
                call.bad.store(i, std::memory_order_relaxed);
                continue;
            }
            const int64_t y = labels.only();
            const Z* z = row_of<Z>(p, i);
            const Vectors<R> vectors(p, i);
            const Sums<R> s = sums_of(z, p.classes, vectors, bend, p.exclude_target ? y : -1,
                                       kept ? kept + (i - begin) * p.classes : nullptr);
            found.lse = R(std::log(s.exp));
            found.z_max = s.max;
            int64_t sole = -1;
            for (int64_t j = 0; j < labels.count; ++j) {
                const int64_t label = labels.classes[j];
                if (label == absent) continue;
                const R share = labels.share(j) * vectors.weight_at(label);
                found.target_mass += share;
                found.target_z += product(share, R(one(z[label]) - s.max));
                if (only(label, vectors, z, 1, s.mass)) sole = label;
            }
            if (vectors.soft) {
                found.target_mass = R(s.soft_weighted);
                found.target_z = R(s.soft_dot);
                const int64_t certainly = certain(z, p.classes, found.z_max, found.lse);
                if (only(certainly, vectors, z, 1, s.mass)) sole = certainly;
            }
            if (p.exclude_target) sole = -1;
            const R mass = R(vectors.prior ? s.mass : s.mass / double(p.classes));
            const bool sizeable = !(mass < std::numeric_limits<R>::min());  // large enough to divide by
            if (sizeable) found.valid_mass = mass;
            if (!sizeable) {
                found.prior_mass = found.target_mass;
                found.prior_z = found.target_z;
            } else if (sole >= 0) {
                found.prior_mass = vectors.weight_at(sole);
                found.prior_z = product(found.prior_mass, R(one(z[sole]) - s.max));
            } else {
                found.prior_mass = R(s.weighted / s.mass);
                found.prior_z = R(s.dot / s.mass);
            }
            if (bend.any()) {
                if (sizeable && bend.hinge) {
                    found.hinge = R(s.hinge / s.mass);
                    found.slope = R(s.slope / s.mass);
                }
                if (bend.spread) found.model_z = R(s.model / s.exp);
            }
        }
        store(found, out + i, p.rows);
    }
}

template <typename Z>
INLINE void backward_tiles(const Backward& call, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Vectors<R> vectors(p, 0);
    const R of_mass = R(vectors.prior ? 1 : p.classes);
    for_each_tile<Z>(p, begin, end, [&](int64_t i, int64_t n, const Z* z, int64_t stride) __attribute__((always_inline)) {
        const Statistics<const R*> found = by_name<Statistics>(static_cast<const R*>(call.statistics) + i, p.rows);
        const Gradient<const R*> by = by_name<Gradient>(static_cast<const R*>(call.grad) + i, p.rows);
        TileCoefficients<R> c;
        R mass[tile];
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) {
            mass[j] = of_mass * found.valid_mass[j];
            mass[j] = vectors.prior ? mass[j] : whole<R>(mass[j]);
            c.max[j] = found.z_max[j];
            c.of_exp[j] = by.lse[j] * exp_nonpositive(-found.lse[j]);
            c.of_prior[j] = mass[j] != 0 ? by.prior_z[j] / mass[j] : R(0);
        }
        for (int64_t j = 0; j < n; ++j) {
            const int64_t y = p.target[i + j];
            const bool live = !p.counted || p.counted[i + j];
            c.y[j] = !live ? c.dead : y == absent ? c.none : R(y);
            if (!live || y == absent) continue;
            const bool in_prior = one(z[y * stride + j]) != -inf<R>;
            const R share = mass[j] == 0 ? R(1) : in_prior ? vectors.prior_at(y) / mass[j] : R(0);
            c.at_target[j] = of_shares(by.target_z[j], R(1), by.prior_z[j], share, vectors.weight_at(y));
        }
        write(p, call.out, i, n, z, stride, vectors, c);
    });
}

template <typename Z>
__attribute__((noinline)) void backward_rows(const Backward& call, int64_t begin, int64_t end, const Real<Z>* kept) {
    using R = Real<Z>;
    const Problem& p = call.p;
    if (in_tiles(p)) return backward_tiles<Z>(call, begin, end);
    const Statistics<const R*> found = by_name<Statistics>(static_cast<const R*>(call.statistics), p.rows);
    const Gradient<const R*> by = by_name<Gradient>(static_cast<const R*>(call.grad), p.rows);
    const Bend<R> bend(p);
    for (int64_t i = begin; i < end; ++i) {
        Z* out = static_cast<Z*>(call.out) + i * p.classes;
        if (p.counted && !p.counted[i]) {
            for (int64_t k = 0; k < p.classes; ++k) out[k] = Z{};
            continue;
        }
        const Labels<R> labels(p, i);
        const int64_t y = labels.only();
        const Z* z = row_of<Z>(p, i);
        const Vectors<R> vectors(p, i);
        const R lse = found.lse[i], z_max = found.z_max[i], valid_mass = found.valid_mass[i];
        const R by_target = by.target_z[i], by_prior = by.prior_z[i];
        const double mass = vectors.prior ? double(valid_mass) : whole<R>(double(valid_mass) * double(p.classes));
        const double inverse = std::exp(-double(lse));
        const R by_model = bend.spread ? by.model_z[i] : R(0), by_hinge = bend.hinge ? by.hinge[i] : R(0);
        const Coefficients<R> c{
            z_max,
            R((double(by.lse[i]) + double(by_model) * (1 - double(found.model_z[i]))) * inverse),
            mass != 0 ? R(by_prior / mass) : R(0),
            mass != 0 ? by_target : by_target + by_prior,
            R(by_model * inverse),
            mass != 0 ? R(by_hinge / mass) : R(0),
        };
        // Classes with a gradient of their own: the labels, a certain class and, with a hinge, the largest.
        int64_t apart[most_labels + 1], number = 0, top = -1;
        if (vectors.soft) apart[number++] = certain(z, p.classes, z_max, lse);
        for (int64_t j = 0; j < labels.count; ++j) apart[number++] = labels.classes[j];
        if (bend.hinge) {
            top = first_with(z_max, z, p.classes);
            apart[number++] = top;
        }
        const auto value_at = [&](int64_t k) {
            const R x = one(z[k]), weight = vectors.weight_at(k);
            const R d = x - z_max, exp = exp_nonpositive(d);
            const bool in_prior = x != -inf<R> && (k != y || !p.exclude_target);
            const R target = vectors.soft ? vectors.soft[k] : labels.share_of(k);
            const R prior = mass == 0 ? target : in_prior ? R(double(vectors.prior_at(k)) / mass) : R(0);
            R value = of_shares(by_target, target, by_prior, prior, weight);
            if (x != -inf<R>) value += c.of_model * exp * d;
            if (in_prior) value -= c.of_hinge * bend.slope(d) * vectors.prior_at(k) * weight;
            if (k == top) value += by_hinge * found.slope[i];
            return c.of_exp * exp + value;
        };
        R values[most_labels + 1];  // computed before out is written, which may be z
        for (int64_t j = 0; j < number; ++j) values[j] = apart[j] >= 0 ? value_at(apart[j]) : R(0);
        const R* e = kept ? kept + (i - begin) * p.classes : nullptr;
        specialised(vectors, bend, [&](auto soft, auto any, auto bent) __attribute__((always_inline)) {
            write<soft, any, bent>(out, z, p.classes, vectors, c, bend, e);
        });
        for (int64_t j = 0; j < number; ++j)
            if (apart[j] >= 0) put(values[j], out[apart[j]]);
    }
}

template <typename Z>
void forward(void* context, int64_t begin, int64_t end) {
    forward_rows<Z>(*static_cast<Forward*>(context), begin, end, nullptr);
}

template <typename Z>
void backward(void* context, int64_t begin, int64_t end) {
    backward_rows<Z>(*static_cast<Backward*>(context), begin, end, nullptr);
}

}  // namespace
}  // namespace labelsmooth
