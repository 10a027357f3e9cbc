// The statistics of rows, and the gradient by the logits given that by the statistics.

#pragma once

#include "columns.h"
#include "row.h"

namespace labelsmooth {
namespace {

// Whether that class has all of the prior's mass.
template <typename Z, typename R, typename Mass>
INLINE bool only(int64_t k, const Vectors<R>& vectors, const Z* z, int64_t stride, Mass mass) {
    return k >= 0 && one(z[k * stride]) > -inf<R> && Mass(vectors.prior_at(k)) == mass;
}

// The class that has all of the model's probability, whose exp(z - max) are 1 and whose logarithm is 0; or -1.
template <typename Z, typename R>
INLINE int64_t certain(const Z* z, int64_t classes, R max, R lse) {
    if (lse == 0)
        for (int64_t k = 0; k < classes; ++k)
            if (one(z[k]) == max) return k;
    return -1;
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
            R all[10] = {};  // lse, target_z, prior_z, hinge, model_z, target_mass, prior_mass, valid_mass, z_max, slope
            if (!p.counted || p.counted[i + j]) {
                const int64_t y = p.target[i + j];
                if (y != absent && (y < 0 || y >= p.classes)) {
                    call.bad.store(i + j, std::memory_order_relaxed);
                    continue;
                }
                all[0] = s.lse[j];
                if (y != absent) {
                    all[5] = vectors.weight_at(y);
                    all[1] = product(all[5], one(z[y * stride + j]) - s.max[j]);
                }
                const R mass = of_mass * s.mass[j];
                const bool sizeable = !(mass < std::numeric_limits<R>::min());  // so that it can be divided by
                const bool apart = sizeable && !only(y, vectors, z + j, stride, s.mass[j]);
                all[2] = apart ? s.dot[j] : all[1];
                all[6] = apart ? s.weighted[j] / s.mass[j] : all[5];
                all[7] = sizeable ? mass : R(0);
                all[8] = s.max[j];
            }
            for (int64_t k = 0; k < 10; ++k) out[k * p.rows + j] = all[k];
        }
    });
}

template <typename Z>
void forward(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    Forward& call = *static_cast<Forward*>(context);
    const Problem& p = call.p;
    if (in_tiles(p)) return forward_tiles<Z>(call, begin, end);
    R* out = static_cast<R*>(call.statistics);
    const Bend<R> bend(p);
    for (int64_t i = begin; i < end; ++i) {
        R lse = 0, target_z = 0, prior_z = 0, target_mass = 0, prior_mass = 0, valid_mass = 0, z_max = 0;
        R hinge = 0, model_z = 0, slope = 0;
        if (!p.counted || p.counted[i]) {
            const int64_t y = p.target ? p.target[i] : absent;
            if (y != absent && (y < 0 || y >= p.classes)) {
                call.bad.store(i, std::memory_order_relaxed);
                continue;
            }
            const Z* z = row_of<Z>(p, i);
            const Vectors<R> vectors(p, i);
            const Sums<R> s = sums_of(z, p.classes, vectors, p.exclude_target ? y : -1);
            lse = R(std::log(s.exp));
            z_max = s.max;
            if (y != absent) {
                target_mass = vectors.weight_at(y);
                target_z = product(target_mass, R(one(z[y]) - s.max));
            } else if (vectors.soft) {
                target_mass = R(s.soft_weighted);
                target_z = R(s.soft_dot);
            }
            const R mass = R(vectors.prior ? s.mass : s.mass / double(p.classes));
            const bool sizeable = !(mass < std::numeric_limits<R>::min());  // so that it can be divided by
            const int64_t sole = p.exclude_target ? -1 : vectors.soft ? certain(z, p.classes, z_max, lse) : y;
            if (sizeable) valid_mass = mass;
            if (!sizeable) {
                prior_mass = target_mass;
                prior_z = target_z;
            } else if (only(sole, vectors, z, 1, s.mass)) {
                prior_mass = vectors.weight_at(sole);
                prior_z = product(prior_mass, R(one(z[sole]) - s.max));
            } else {
                prior_mass = R(s.weighted / s.mass);
                prior_z = R(s.dot / s.mass);
            }
            if (bend.any()) {
                const BendSums<R> b = bend_of(z, p.classes, vectors, s.max, bend, p.exclude_target ? y : -1);
                if (sizeable) {
                    hinge = R(b.hinge / s.mass);
                    slope = R(b.slope / s.mass);
                }
                model_z = R(b.model / s.exp);
            }
        }
        const R all[] = {lse, target_z, prior_z, hinge, model_z, target_mass, prior_mass, valid_mass, z_max, slope};
        for (int64_t j = 0; j < 10; ++j) out[j * p.rows + i] = all[j];
    }
}

template <typename Z>
INLINE void backward_tiles(const Backward& call, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Vectors<R> vectors(p, 0);
    const R of_mass = R(vectors.prior ? 1 : p.classes);
    for_each_tile<Z>(p, begin, end, [&](int64_t i, int64_t n, const Z* z, int64_t stride) __attribute__((always_inline)) {
        const R* statistics = static_cast<const R*>(call.statistics) + i;
        const R* grad = static_cast<const R*>(call.grad) + i;
        TileCoefficients<R> c;
        R mass[tile];
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) {
            mass[j] = of_mass * statistics[7 * p.rows + j];
            mass[j] = vectors.prior ? mass[j] : whole<R>(mass[j]);
            c.max[j] = statistics[8 * p.rows + j];
            c.of_exp[j] = grad[j] * exp_nonpositive(-statistics[j]);
            c.of_prior[j] = mass[j] != 0 ? grad[2 * p.rows + j] / mass[j] : R(0);
        }
        for (int64_t j = 0; j < n; ++j) {
            const int64_t y = p.target[i + j];
            const bool live = !p.counted || p.counted[i + j];
            c.y[j] = !live ? c.dead : y == absent ? c.none : R(y);
            if (!live || y == absent) continue;
            const bool in_prior = one(z[y * stride + j]) != -inf<R>;
            const R share = mass[j] == 0 ? R(1) : in_prior ? vectors.prior_at(y) / mass[j] : R(0);
            c.at_target[j] = of_shares(grad[p.rows + j], R(1), grad[2 * p.rows + j], share, vectors.weight_at(y));
        }
        write(p, call.out, i, n, z, stride, vectors, c);
    });
}

template <typename Z>
void backward(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Backward& call = *static_cast<Backward*>(context);
    const Problem& p = call.p;
    if (in_tiles(p)) return backward_tiles<Z>(call, begin, end);
    const R* statistics = static_cast<const R*>(call.statistics);
    const R* grad = static_cast<const R*>(call.grad);
    const Bend<R> bend(p);
    for (int64_t i = begin; i < end; ++i) {
        Z* out = static_cast<Z*>(call.out) + i * p.classes;
        if (p.counted && !p.counted[i]) {
            for (int64_t k = 0; k < p.classes; ++k) out[k] = Z{};
            continue;
        }
        const int64_t y = p.target ? p.target[i] : absent;
        const Z* z = row_of<Z>(p, i);
        const Vectors<R> vectors(p, i);
        const auto statistic = [&](int64_t j) { return statistics[j * p.rows + i]; };
        const auto by = [&](int64_t j) { return grad[j * p.rows + i]; };
        const R z_max = statistic(8), model_z = statistic(4);
        const double mass = vectors.prior ? double(statistic(7)) : whole<R>(double(statistic(7)) * double(p.classes));
        const double inverse = std::exp(-double(statistic(0)));
        const R by_model = bend.spread ? by(4) : R(0), by_hinge = bend.hinge ? by(3) : R(0);
        const Coefficients<R> c{
            z_max,
            R((double(by(0)) + double(by_model) * (1 - double(model_z))) * inverse),
            mass != 0 ? R(by(2) / mass) : R(0),
            mass != 0 ? by(1) : by(1) + by(2),
            R(by_model * inverse),
            mass != 0 ? R(by_hinge / mass) : R(0),
        };
        // The classes that have more than their neighbours: the target and, with a hinge, the largest.
        int64_t top = -1;
        if (bend.hinge)
            for (int64_t k = 0; k < p.classes && top < 0; ++k)
                if (one(z[k]) == z_max) top = k;
        const auto value_at = [&](int64_t k) {
            const R x = one(z[k]), weight = vectors.weight_at(k);
            const R d = x - z_max, exp = exp_nonpositive(d);
            const bool in_prior = x != -inf<R> && (k != y || !p.exclude_target);
            const R target = k == y ? R(1) : vectors.soft ? vectors.soft[k] : R(0);
            const R prior = mass == 0 ? target : in_prior ? R(double(vectors.prior_at(k)) / mass) : R(0);
            R value = of_shares(by(1), target, by(2), prior, weight);
            if (x != -inf<R>) value += c.of_model * exp * d;
            if (in_prior) value -= c.of_hinge * bend.slope(d) * vectors.prior_at(k) * weight;
            if (k == top) value += by_hinge * statistic(9);
            return c.of_exp * exp + value;
        };
        const int64_t sure = vectors.soft ? certain(z, p.classes, z_max, statistic(0)) : y != absent ? y : -1;
        const R at_sure = sure >= 0 ? value_at(sure) : R(0), at_top = top >= 0 ? value_at(top) : R(0);
        specialised(vectors, [&](auto soft, auto any) __attribute__((always_inline)) {
            if (bend.any())
                write<soft, true, true>(out, z, p.classes, vectors, c, bend);
            else
                write<soft, any, false>(out, z, p.classes, vectors, c, bend);
        });
        if (sure >= 0) put(at_sure, out[sure]);
        if (top >= 0) put(at_top, out[top]);
    }
}

}  // namespace
}  // namespace labelsmooth
