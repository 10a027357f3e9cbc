// Tables of named numbers per row, stored by name: the first name's numbers of all rows, then the second's.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "arithmetic.h"
#include "kernels.h"

namespace labelsmooth {
namespace {

template <template <typename> class Names>
constexpr size_t count = sizeof(Names<char>);

template <template <typename> class Names, typename R, size_t... name>
INLINE Names<R*> by_name(R* table, int64_t rows, std::index_sequence<name...>) {
    return {table + int64_t(name) * rows...};
}

// Pointers to the numbers of each name.
template <template <typename> class Names, typename R>
INLINE Names<R*> by_name(R* table, int64_t rows) {
    return by_name<Names>(table, rows, std::make_index_sequence<count<Names>>());
}

// Writes the numbers of the table's first row.
template <template <typename> class Names, typename R>
INLINE void store(const Names<R>& row, R* table, int64_t rows) {
    R numbers[count<Names>];
    static_assert(sizeof numbers == sizeof row);
    std::memcpy(numbers, &row, sizeof row);
    for (size_t name = 0; name < count<Names>; ++name) table[int64_t(name) * rows] = numbers[name];
}

}  // namespace
}  // namespace labelsmooth
