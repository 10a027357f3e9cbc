// Elementwise arithmetic that compilers vectorise: exp, log, and conversions from and to half precision.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define INLINE inline __attribute__((always_inline))

namespace labelsmooth {
namespace {

template <typename To, typename From>
INLINE To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// exp(x) for x <= 0, within about 1 ulp. A result that is not a normal number is 0; NaN stays NaN.
//
// x = n ln 2 + r with |r| <= ln 2 / 2: a polynomial in r, times 2^n by its bits. Adding 1.5 * 2^23 (2^52)
// rounds to an integer and leaves it in the low bits, for every x without overflow.
INLINE float exp_nonpositive(float x) {
    constexpr float lowest = -87.33654f, shift = 12582912.0f;
    float clamped = x < lowest ? lowest : x;
    float rounded = clamped * 1.44269504f + shift;
    float n = rounded - shift;
    float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t exponent = (bits<uint32_t>(rounded) - bits<uint32_t>(shift) + 127u) << 23;
    float y = p * bits<float>(exponent);
    return x < lowest ? 0.0f : y;
}

INLINE double exp_nonpositive(double x) {
    constexpr double lowest = -708.3964185322641, shift = 6755399441055744.0;
    double clamped = x < lowest ? lowest : x;
    double rounded = clamped * 1.4426950408889634 + shift;
    double n = rounded - shift;
    double r = (clamped - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    uint64_t exponent = (bits<uint64_t>(rounded) - bits<uint64_t>(shift) + 1023u) << 52;
    double y = p * bits<double>(exponent);
    return x < lowest ? 0.0 : y;
}

// log(x) for positive, normal x within about 1 ulp; NaN stays NaN.
INLINE float log_positive(float x) {
    const uint32_t u = bits<uint32_t>(x);
    const float m = bits<float>((u & 0x7fffffu) | 0x3f800000u);  // x = 2^e m
    const bool upper = m > 1.41421356f;
    const float e = float(int32_t(u >> 23) - 127 + int32_t(upper)), f = (upper ? 0.5f * m : m) - 1.0f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const float square = f * f;
    const float y = p * f * square - 2.12194440e-4f * e - 0.5f * square;
    return x != x ? x : f + y + 0.693359375f * e;
}

INLINE double log_positive(double x) { return std::log(x); }

// Rounds x to the nearest integer if it is that but for rounding errors in R; x must be small against shift.
template <typename R, typename T>
INLINE T whole(T x) {
    constexpr T shift = sizeof(T) == sizeof(float) ? T(12582912.0) : T(6755399441055744.0);
    const T n = (x + shift) - shift, error = x - n, bound = 2 * T(std::numeric_limits<R>::epsilon()) * x;
    return error <= bound && -error <= bound ? n : x;
}

using float32 = float;
using float64 = double;

struct bfloat16 {
    uint16_t bits;
};

struct float16 {
    uint16_t bits;
};

INLINE float widen(bfloat16 x) { return bits<float>(uint32_t(x.bits) << 16); }

// The exponent is rebiased by a multiplication, which is exact and correct for subnormal numbers too.
INLINE float widen(float16 x) {
    uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
    uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
    uint32_t scaled = bits<uint32_t>(bits<float>(magnitude) * 0x1p112f);
    uint32_t value = (x.bits & 0x7fffu) < 0x7c00u ? scaled : magnitude | 0x7f800000u;
    return bits<float>(value | sign);
}

// Both conversions round to nearest, ties to even.
INLINE void narrow(float x, bfloat16& to) {
    uint32_t u = bits<uint32_t>(x);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    to.bits = uint16_t(x != x ? 0x7fc0u : rounded);
}

INLINE void narrow(float x, float16& to) {
    uint32_t u = bits<uint32_t>(x), sign = u & 0x80000000u, magnitude = u ^ sign;
    // Subnormal numbers: adding 1/2 rounds to multiples of 2^-24.
    uint32_t subnormal = bits<uint32_t>(bits<float>(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t value = magnitude >= 0x477ff000u ? special : finite;
    to.bits = uint16_t(value | (sign >> 16));
}

}  // namespace
}  // namespace labelsmooth
