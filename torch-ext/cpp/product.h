// Matrix products on plain memory, row by row, through the BLAS that libtorch brings along.
#pragma once

#include <cstdint>

// MKL in the wheels for x86. Weak: where libtorch has another BLAS inside, the address is null.
extern "C" __attribute__((weak)) void sgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k,
                                             const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
                                             const float* beta, float* c, const int* ldc);

namespace product {

inline bool available() { return sgemm_ != nullptr; }

// A matrix in memory whose rows are `stride` numbers apart.
template <typename Number>
struct Matrix {
  Number* data;
  int64_t stride;
};
using In = Matrix<const float>;
using Out = Matrix<float>;

// c = op(a) op(b) + keep * c, with c `rows x columns` and `inner` numbers in each sum. BLAS counts columns first, so what it sees is
// the transposed equation.
inline void run(bool a_transposed, bool b_transposed, int64_t rows, int64_t columns, int64_t inner, In a, In b, float keep, Out c) {
  const float one = 1.0f;
  const int m = static_cast<int>(columns), n = static_cast<int>(rows), k = static_cast<int>(inner);
  const int lda = static_cast<int>(b.stride), ldb = static_cast<int>(a.stride), ldc = static_cast<int>(c.stride);
  sgemm_(b_transposed ? "T" : "N", a_transposed ? "T" : "N", &m, &n, &k, &one, b.data, &lda, a.data, &ldb, &keep, c.data, &ldc);
}

// c = a b^T, as a linear layer: a `rows x inner`, b `columns x inner`.
inline void nt(int64_t rows, int64_t columns, int64_t inner, In a, In b, float keep, Out c) {
  run(false, true, rows, columns, inner, a, b, keep, c);
}

// c = a b: a `rows x inner`, b `inner x columns`.
inline void nn(int64_t rows, int64_t columns, int64_t inner, In a, In b, float keep, Out c) {
  run(false, false, rows, columns, inner, a, b, keep, c);
}

// c = a^T b, as a weight's gradient: a `inner x rows`, b `inner x columns`.
inline void tn(int64_t rows, int64_t columns, int64_t inner, In a, In b, float keep, Out c) {
  run(true, false, rows, columns, inner, a, b, keep, c);
}

}  // namespace product
