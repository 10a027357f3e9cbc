// Values and gradients of a built kernel against the definitions, computed as they read in a wider type. The error may
// be twice that of the same in the kernel's own type. For every instruction set that this CPU has, one line.

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "../kernels.h"

namespace {

using namespace labelsmooth;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr int64_t ignored = -100;

struct Library {
    int (*use)(const char*);
    int64_t (*forward)(const Problem*, void*);
    void (*backward)(const Problem*, const void*, const void*, void*);
    int (*uniform_forward)(const Problem*, int64_t, double, void*, double*, double, double, void*);
    void (*uniform_backward)(const Problem*, int64_t, double, double, const void*, void*);
};

struct Type {
    const char* name;
    int digits, lowest;  // of the significand; exponent of the smallest normal number
    size_t size;
    double eps() const { return std::ldexp(1.0, 1 - digits); }
};
const Type types[Dtype::count] = {  // in the order of Dtype
    {"float32", 24, -126, 4}, {"float64", 53, -1022, 8}, {"bfloat16", 8, -126, 2}, {"float16", 11, -14, 2}};

double rounded(double x, const Type& type) {
    if (x == 0 || !std::isfinite(x)) return x;
    const double step = std::ldexp(1.0, std::max(std::ilogb(x), type.lowest) - type.digits + 1);
    return std::nearbyint(x / step) * step;
}

// Numbers of that type, as bytes and back.
void store(double x, int64_t dtype, void* at) {
    const float f = float(x);
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if (dtype == Dtype::float32) std::memcpy(at, &f, 4);
    if (dtype == Dtype::float64) std::memcpy(at, &x, 8);
    uint16_t half = uint16_t(bits >> 16);
    if (dtype == Dtype::float16) {
        const double magnitude = std::fabs(x);
        const int e = magnitude == 0 ? -14 : std::max(std::ilogb(magnitude), -14);
        half = uint16_t(std::isinf(x) ? 0x7c00 : int(std::ldexp(magnitude, 10 - e)) + ((e + 14) << 10));
        half = uint16_t(half | (std::signbit(x) ? 0x8000 : 0));
    }
    if (types[dtype].size == 2) std::memcpy(at, &half, 2);
}

double fetch(int64_t dtype, const void* at) {
    float f;
    double x;
    uint16_t half;
    if (dtype == Dtype::float32) return std::memcpy(&f, at, 4), double(f);
    if (dtype == Dtype::float64) return std::memcpy(&x, at, 8), x;
    std::memcpy(&half, at, 2);
    if (dtype == Dtype::bfloat16) {
        const uint32_t bits = uint32_t(half) << 16;
        return std::memcpy(&f, &bits, 4), double(f);
    }
    const int e = (half >> 10) & 31, m = half & 1023;
    const double magnitude = e == 31 ? (m ? NAN : inf) : e ? std::ldexp(1024 + m, e - 25) : std::ldexp(m, -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

struct Case {
    int64_t dtype, rows, classes;
    bool map, soft;
    int prior;  // 0: uniform, 1: one, 2: one for each row
    bool weight, exclude, hinge, spread, mask, uniform;

    void print() const {
        std::printf("%s rows=%d classes=%d map=%d soft=%d prior=%d weight=%d exclude=%d hinge=%d spread=%d mask=%d uniform=%d",
                    types[dtype].name, int(rows), int(classes), map, soft, prior, weight, exclude, hinge, spread, mask, uniform);
    }
};

// How many names there are, the numbers in their order, and the names of numbers.
template <template <typename> class Names>
constexpr int64_t count = sizeof(Names<char>);

template <template <typename> class Names, typename T>
std::vector<double> numbers(const Names<T>& names) {
    T all[count<Names>];
    std::memcpy(all, &names, sizeof all);
    return {std::begin(all), std::end(all)};
}

template <template <typename> class Names>
Names<double> named(const std::vector<double>& numbers) {
    Names<double> names;
    std::memcpy(&names, numbers.data(), sizeof names);
    return names;
}

// Of one row, all in double.
struct Row {
    std::vector<double> z, target, prior, weight;
    int64_t y;
    Gradient<double> by;
};

struct Answer {
    Statistics<double> statistics;
    std::vector<double> gradient;
};

// The definitions.
template <typename T>
Answer naive(const Case& c, const Row& row) {
    const int64_t K = c.classes;
    const auto valid = [&](int64_t k) { return row.z[k] > -inf; };
    int64_t top = 0;
    for (int64_t k = 0; k < K; ++k)
        if (row.z[k] > row.z[top]) top = k;
    std::vector<T> d(K), p(K), target(K), prior(K);
    T sum = 0, mass = 0;
    for (int64_t k = 0; k < K; ++k) {
        d[k] = valid(k) ? T(row.z[k]) - T(row.z[top]) : T(0);
        p[k] = valid(k) ? std::exp(d[k]) : T(0);
        prior[k] = valid(k) && !(c.exclude && k == row.y) ? T(row.prior[k]) : T(0);
        sum += p[k];
        mass += prior[k];
    }
    Statistics<T> s{};
    s.lse = std::log(sum);
    std::vector<T> bend(K);
    for (int64_t k = 0; k < K; ++k) {
        p[k] /= sum;
        target[k] = T(row.target[k]) * T(row.weight[k]);
        const T share = mass == 0 ? T(0) : prior[k] / mass * T(row.weight[k]);
        prior[k] = mass == 0 ? target[k] : share;
        s.target_z += target[k] * d[k];
        s.prior_z += prior[k] * d[k];
        s.target_mass += target[k];
        s.prior_mass += prior[k];
        const T beyond = c.hinge && -d[k] > T(0.5) ? -d[k] - T(0.5) : T(0);
        s.hinge += share * beyond * beyond;
        bend[k] = share * 2 * beyond;
        s.slope += bend[k];
        if (c.spread) s.model_z += p[k] * d[k];
    }
    s.valid_mass = mass;
    s.z_max = T(row.z[top]);
    Answer answer{named<Statistics>(numbers(s)), {}};
    const Gradient<double>& by = row.by;
    for (int64_t k = 0; k < K; ++k) {
        T g = T(by.lse) * p[k] + T(by.target_z) * target[k] + T(by.prior_z) * prior[k];
        if (c.hinge) g += T(by.hinge) * ((k == top ? s.slope : T(0)) - bend[k]);
        if (c.spread) g += T(by.model_z) * p[k] * (1 + d[k] - s.model_z);
        answer.gradient.push_back(double(g));
    }
    return answer;
}

struct Errors {
    double ours = 0, naive = 0, of_allowed = 0;

    // All three are of one type, size is what a last digit is counted of at least.
    void add(const Case& c, const std::vector<double>& our, const std::vector<double>& plain, const std::vector<double>& truth,
             double eps, double size) {
        double error = 0, other = 0, scale = size;
        for (size_t k = 0; k < truth.size(); ++k) {
            error = std::max(error, std::isfinite(our[k]) ? std::fabs(our[k] - truth[k]) : inf);
            other = std::max(other, std::fabs(plain[k] - truth[k]));
            scale = std::max(scale, std::fabs(truth[k]));
        }
        const double allowed = 2 * other + 8 * eps * scale;
        if (error > allowed) {
            c.print();
            std::printf(": error %g, allowed %g\n", error, allowed);
        }
        if (truth.empty()) return;
        ours = std::max(ours, error / (eps * scale));
        naive = std::max(naive, other / (eps * scale));
        of_allowed = std::max(of_allowed, error / allowed);
    }
};

void check(const Library& library, const Case& c, std::mt19937& random, Errors& errors) {
    const Type& type = types[c.dtype];
    const bool wide = c.dtype == Dtype::float64;
    const int64_t N = c.rows, K = c.classes, real_type = wide ? Dtype::float64 : Dtype::float32;
    const Type& real = types[real_type];
    std::normal_distribution<double> normal;
    const auto draw = [&] { return rounded(normal(random), real); };
    std::vector<Row> rows(N);
    std::vector<double> prior(K), weight(K, 1.0);
    for (int64_t k = 0; k < K; ++k) {
        prior[k] = c.prior ? std::fabs(draw()) : 1.0 / double(K);
        if (c.weight) weight[k] = std::fabs(draw());
    }
    std::vector<char> z(N * K * type.size), soft(N * K * real.size), priors(N * K * real.size), weights(K * real.size),
        statistics(count<Statistics> * N * real.size), grad(count<Gradient> * N * real.size), out(N * K * type.size);
    std::vector<int64_t> target(N);
    std::vector<char> counted(N);
    const auto place = [&](int64_t i, int64_t k) { return (c.map ? k * N + i : i * K + k) * type.size; };
    for (int64_t i = 0; i < N; ++i) {
        Row& row = rows[i];
        row.y = i * 7 % K;
        target[i] = row.y;
        counted[i] = i % 5 != 4;
        if (c.uniform && !counted[i]) target[i] = ignored;
        row.weight = weight;
        for (int64_t k = 0; k < K; ++k) {
            const bool masked = c.mask && k != row.y && (k + i) % 3 == 0;
            row.z.push_back(masked ? -inf : rounded(3 * normal(random), type));
            row.target.push_back(c.soft ? (masked ? 0.0 : std::fabs(draw())) : double(k == row.y));
            row.prior.push_back(c.prior == 2 ? std::fabs(draw()) : prior[k]);
            store(row.z[k], c.dtype, &z[place(i, k)]);
            store(row.target[k], real_type, &soft[(i * K + k) * real.size]);
            store(row.prior[k], real_type, &priors[(c.prior == 2 ? i * K + k : k) * real.size]);
            store(weight[k], real_type, &weights[k * real.size]);
        }
        std::vector<double> by;
        for (int64_t j = 0; j < count<Gradient>; ++j) {
            by.push_back(draw());
            store(by[j], real_type, &grad[(j * N + i) * real.size]);
        }
        row.by = named<Gradient>(by);
    }
    Problem p{};
    p.z = z.data();
    p.dtype = c.dtype;
    p.rows = p.inner = N;
    p.inner_stride = c.map ? 1 : K;
    p.class_stride = c.map ? N : 1;
    p.classes = K;
    p.target = c.soft ? nullptr : target.data();
    p.labels = 1;
    p.soft = c.soft ? soft.data() : nullptr;
    p.counted = c.uniform ? nullptr : reinterpret_cast<const bool*>(counted.data());
    p.prior = c.prior ? priors.data() : nullptr;
    p.prior_stride = c.prior == 2 ? K : 0;
    p.prior_by_row = c.prior == 2;
    p.weight = c.weight ? weights.data() : nullptr;
    p.exclude_target = c.exclude;
    p.margin = c.hinge ? 0.5 : NAN;
    p.squared = c.hinge;
    p.spread = c.spread;
    p.plain = !c.soft && !c.exclude && !c.hinge && !c.spread && c.prior != 2;
    p.threads = 2;

    double sums[3] = {}, truth_loss = 0, naive_loss = 0;
    const double eps = 0.1, scale = 1.0 / 3;
    if (c.uniform) {
        std::vector<char> at_once(out.size());
        if (library.uniform_forward(&p, ignored, eps, statistics.data(), sums, 2, 2, at_once.data())) sums[0] = NAN;
        library.uniform_backward(&p, ignored, eps, 1, statistics.data(), out.data());
        if (at_once != out) sums[0] = NAN;
        library.uniform_backward(&p, ignored, eps, scale, statistics.data(), out.data());
        for (Row& row : rows) row.by.lse = scale, row.by.target_z = scale * (eps - 1), row.by.prior_z = -scale * eps;
    } else {
        if (library.forward(&p, statistics.data()) != -1) sums[0] = NAN;
        library.backward(&p, statistics.data(), grad.data(), out.data());
    }
    constexpr int64_t last = count<Statistics>;
    std::vector<double> ours[last + 1], plains[last + 1], truths[last + 1];  // the statistics and the gradient, of all rows
    double size = 0;                                                         // of what the gradient is made of
    for (int64_t i = 0; i < N; ++i) {
        for (int64_t k = 0; k < K; ++k) ours[last].push_back(fetch(c.dtype, &out[place(i, k)]));
        if (!counted[i]) {
            plains[last].resize(ours[last].size());
            truths[last].resize(ours[last].size());
            continue;
        }
        for (const double g : numbers(rows[i].by)) size = std::max(size, std::fabs(g));
        const Answer truth = wide ? naive<long double>(c, rows[i]) : naive<double>(c, rows[i]);
        const Answer plain = wide ? naive<double>(c, rows[i]) : naive<float>(c, rows[i]);
        for (const double g : truth.gradient) truths[last].push_back(g);
        for (const double g : plain.gradient) plains[last].push_back(rounded(g, type));
        const auto loss = [&](const Statistics<double>& s) { return s.lse - (1 - eps) * s.target_z - eps * s.prior_z; };
        truth_loss += loss(truth.statistics);
        naive_loss += loss(plain.statistics);
        for (int64_t j = 0; j < last && !c.uniform; ++j) {
            ours[j].push_back(fetch(real_type, &statistics[(j * N + i) * real.size]));
            plains[j].push_back(numbers(plain.statistics)[j]);
            truths[j].push_back(numbers(truth.statistics)[j]);
        }
    }
    for (int64_t j = 0; j < last; ++j) errors.add(c, ours[j], plains[j], truths[j], real.eps(), 1);
    errors.add(c, ours[last], plains[last], truths[last], type.eps(), size);
    if (c.uniform || sums[0] != sums[0]) errors.add(c, {sums[0]}, {naive_loss}, {truth_loss}, real.eps(), 1.0);
}

template <typename F>
F function(void* library, const char* name) {
    F f;
    void* symbol = dlsym(library, name);
    std::memcpy(&f, &symbol, sizeof f);
    return f;
}

}  // namespace

int main(int, char** arguments) {
    void* file = dlopen(arguments[1], RTLD_NOW);
    if (!file) return std::printf("%s\n", dlerror()), 1;
    const Library library{
        function<decltype(Library::use)>(file, "labelsmooth_use"),
        function<decltype(Library::forward)>(file, "labelsmooth_forward"),
        function<decltype(Library::backward)>(file, "labelsmooth_backward"),
        function<decltype(Library::uniform_forward)>(file, "labelsmooth_uniform_forward"),
        function<decltype(Library::uniform_backward)>(file, "labelsmooth_uniform_backward"),
    };
    bool bad = library.use("no such thing");
    int found = 0;
    for (const char* isa : {"avx512", "avx2", "sse2", "neon", "baseline"}) {
        if (!library.use(isa)) continue;
        ++found;
        std::mt19937 random(0);
        Errors errors;
        int cases = 0;
        const auto run = [&](const Case& c) { ++cases, check(library, c, random, errors); };
        for (int64_t dtype = 0; dtype < Dtype::count; ++dtype)
            for (const int64_t K : {1, 5, 24, 33, 1024, 2500})
                for (const bool mask : {false, true}) {
                    const int64_t N = K <= 24 ? 150 : 6;
                    for (const bool map : {false, true}) {
                        if (map && K > 1024) continue;
                        run({dtype, N, K, map, false, 0, false, false, false, false, mask, true});
                        for (const int prior : {0, 1})
                            for (const bool weight : {false, true})
                                run({dtype, map ? 40 : N, K, map, false, prior, weight, false, false, false, mask, false});
                    }
                    for (const int prior : {0, 1, 2})
                        for (const bool weight : {false, true})
                            for (const int bend : {0, 1, 2, 3})
                                for (const int kind : {0, 1, 2})
                                    run({dtype, 6, K, false, kind == 1, prior, weight, kind == 2, bend % 2 == 1, bend > 1, mask, false});
                }
        std::printf("%-8s %d cases: worst error %.1f last digits, written out naively %.1f; %.0f%% of what is allowed\n", isa,
                    cases, errors.ours, errors.naive, 100 * errors.of_allowed);
        bad = bad || errors.of_allowed > 1;
    }
    return bad || !found;
}
