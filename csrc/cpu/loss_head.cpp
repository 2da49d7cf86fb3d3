#include <limits>

#include "bre_cpu.h"
#include "parallel.h"
#include "pixels.h"

namespace bre::cpu {
namespace {

// e^x for x <= 0, to about 1 ulp, in operations that vectorise; below -87 it stays at e^-87 = 1.6e-38.
BRE_INLINE float exp_nonpositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = std::max(x, -87.0f);
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // |r| <= ln(2)/2
  float p = 1.9875691500e-4f;                                    // Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

// logits[begin .. begin+kLanes) of one row, -inf past its end and at the target: the other classes' logits.
template <class Number>
BRE_INLINE void load_others(const Number* logits, std::int64_t begin, std::int64_t K, std::int64_t target, float* z) {
  const std::int64_t n = std::min<std::int64_t>(kLanes, K - begin);
  if (n == kLanes) {
    for (int j = 0; j < kLanes; ++j) z[j] = to_float(logits[begin + j]);
  } else {
    for (int j = 0; j < kLanes; ++j) z[j] = -std::numeric_limits<float>::infinity();
    for (std::int64_t j = 0; j < n; ++j) z[j] = to_float(logits[begin + j]);
  }
  if (target >= begin && target < begin + n) z[target - begin] = -std::numeric_limits<float>::infinity();
}

// With d = z_t - logsumexp(others), p_t = sigmoid(d). Both losses are softplus: -log p_t = softplus(-d) and
// -log(1-p_t) = softplus(d), with gradients -+sigmoid(-+d) at t, shared out among the others by their own softmax.
template <class Number>
struct LossRow {
  BRE_INLINE void operator()(const Number* logits, std::int64_t K, std::int64_t target, bool add, float weight,
                             float* loss, Number* grad, bool* success) const {
    const float own = to_float(logits[target]);
    float z[kLanes], best[kLanes], sum[kLanes] = {};
    for (int j = 0; j < kLanes; ++j) best[j] = -std::numeric_limits<float>::infinity();
    for (std::int64_t i = 0; i < K; i += kLanes) {
      load_others(logits, i, K, target, z);
      for (int j = 0; j < kLanes; ++j) best[j] = std::max(best[j], z[j]);
    }
    float top = best[0];
    for (float x : best) top = std::max(top, x);

    for (std::int64_t i = 0; i < K; i += kLanes) {
      load_others(logits, i, K, target, z);
      for (int j = 0; j < kLanes; ++j) sum[j] += exp_nonpositive(z[j] - top);
    }
    float total = 0;
    for (float part : sum) total += part;

    const float d = (own - top) - std::log(total);
    const float a = add ? d : -d;
    const float e = std::exp(-std::fabs(a));
    *loss = std::max(-a, 0.0f) + std::log1p(e);
    const float pull = weight * (a >= 0 ? e : 1.0f) / (1.0f + e);  // weight * sigmoid(-a)
    const float signed_pull = add ? pull : -pull;
    bool is_top = own > top;
    if (own == top) {  // ties go to the lowest class
      std::int64_t first = 0;
      while (to_float(logits[first]) != own) ++first;
      is_top = first == target;
    }
    *success = add == is_top;

    const float share = signed_pull / total;
    for (std::int64_t i = 0; i < K; i += kLanes) {
      load_others(logits, i, K, target, z);
      for (int j = 0; j < kLanes; ++j) z[j] = share * exp_nonpositive(z[j] - top);
      const std::int64_t n = std::min<std::int64_t>(kLanes, K - i);
      if (n == kLanes) {
        for (int j = 0; j < kLanes; ++j) grad[i + j] = from_float<Number>(z[j]);
      } else {
        for (std::int64_t j = 0; j < n; ++j) grad[i + j] = from_float<Number>(z[j]);
      }
    }
    grad[target] = from_float<Number>(-signed_pull);
  }
};

}  // namespace

void loss_head(const void* logits, Dtype dtype, const std::int64_t* target, const std::int8_t* sign,
               const float* weight, std::int64_t T, std::int64_t N, std::int64_t K, float* loss, void* grad,
               bool* success, int threads) {
  constexpr std::int64_t kRows = 32;  // per task: a row of ten classes is too little work for one
  const Isa isa = current_isa();
  with_dtype(dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    parallel_for(ceil_div(T * N, kRows), threads, [&](std::int64_t task) {
      for (std::int64_t r = task * kRows; r < std::min(T * N, (task + 1) * kRows); ++r) {
        on_isa(isa, LossRow<Number>{}, static_cast<const Number*>(logits) + r * K, K, target[r / N], sign[r] >= 0,
               weight[r], loss + r, static_cast<Number*>(grad) + r * K, success + r);
      }
    });
  });
}

}  // namespace bre::cpu
