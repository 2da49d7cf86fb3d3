// The CPU kernels: raw pointers and sizes in, nothing else. No torch headers, so one build serves every torch.
//
// K classes, T targets, M images, N images per target, P templates, D = C*H*W, A = H*W.
// Every array is dense; images, patterns and momentum are (.., C, H, W) in row-major order. The caller (python/bre/ops)
// has checked shapes, dtypes and index ranges. `threads` is how many may be used; no answer depends on it.
#pragma once

#include <cstdint>

namespace bre::cpu {

// float32, bfloat16 or float16: the dtype of network inputs, logits and gradients.
enum class Dtype { f32, bf16, f16 };

// How a network input or its gradient lies in memory: N,C,H,W or (torch.channels_last) N,H,W,C.
enum class Layout { nchw, nhwc };

struct ImageShape {
  std::int64_t channels;
  std::int64_t area;  // A = H*W
  std::int64_t size() const { return channels * area; }
};

// out[r] = (clip(images[index[r]]/255 + sign[r]*pattern[r/N], 0, 1) - mean) / std for the T*N rows r.
// Reads 1 byte and writes 4 (16-bit numbers: 2) per pixel; the pattern stays in L1/L2. 1024 CIFAR rows: 3 MB in, 12 MB
// out, so about 0.5 ms at 30 GB/s: bound by the store stream, which passes the caches by where the result is larger
// than they are. 16-bit numbers are bound by the arithmetic of rounding.
void apply_pattern(const std::uint8_t* images, ImageShape shape, const std::int64_t* index, const std::int8_t* sign,
                   std::int64_t T, std::int64_t N, const float* pattern, const float* mean, const float* std,
                   Layout layout, Dtype dtype, void* out, int threads);

// Per row of (T*N, K) logits: loss, weight * dloss/dlogits, success. 2K exponentials per row, three passes over K in
// L1.
void loss_head(const void* logits, Dtype dtype, const std::int64_t* target, const std::int8_t* sign,
               const float* weight, std::int64_t T, std::int64_t N, std::int64_t K, float* loss, void* grad,
               bool* success, int threads);

struct UpdateStep {
  float step;  // L2 length of one step
  float decay;  // of the momentum
  float bound;  // |pattern| <= bound
};

// One step of normalised gradient descent with momentum on every active pattern, in place; norms[t] = |pattern_t|.
// Reads 4 (16-bit numbers: 2) bytes of gradient and 1 of image per pixel and row, once, a few rows side by side.
// gradient: (T, D), workspace. 1024 CIFAR rows: 16 MB, about 0.5 ms.
void update_pattern(const void* grad, Dtype dtype, Layout layout, const std::uint8_t* images, ImageShape shape,
                    const std::int64_t* index, const std::int8_t* sign, std::int64_t T, std::int64_t N, float* pattern,
                    float* momentum, const bool* active, const float* std, UpdateStep step, float* gradient,
                    float* norms, int threads);

// count[k] += images of class k; sum[k] += their bytes; second += sum over all images of x x^T. All exact. `order` (M)
// lists the images by label, those of class k at offsets[k] .. offsets[k+1] (K+1).
// M*D*D/2 multiply-adds on bytes: 94 G for 20 000 CIFAR images, 0.5 s on one core at 64 per cycle (AVX-512 VNNI, 3
// GHz). Every call also reads and writes the D*D accumulator once (75 MB for CIFAR), so feed it a thousand images or
// more. The scratch is two packed copies of at most 4096 images (25 MB for CIFAR; 50 MB where only int16 products are
// at hand).
void moments(const std::uint8_t* images, std::int64_t M, std::int64_t D, const std::int64_t* order,
             const std::int64_t* offsets, std::int64_t K, std::int64_t* count, std::int64_t* sum, std::int64_t* second,
             int threads);

// out += codes codes^T for (n, D) codes of at least -127, exact as long as it fits int32; out is symmetric.
// n*n*D/2 multiply-adds on bytes: 0.5 s on one core for 4096 rows of 12 288 (AVX-512 VNNI, 3 GHz). The scratch is two
// packed copies of at most 1024 columns.
void gram(const std::int8_t* codes, std::int64_t n, std::int64_t D, std::int32_t* out, int threads);

// out (r, n) += left right^T, likewise, for (r, D) and (n, D).
void cross_gram(const std::int8_t* left, std::int64_t r, const std::int8_t* right, std::int64_t n, std::int64_t D,
                std::int32_t* out, int threads);

// One to four matrices; the others' pointers are not read.
struct GramParts {
  const std::int32_t* part[4];
  int count;
};

// out = the sum of the parts, (r, n) each; of what exceeds `floor` in a row, but for its own column rows[i], how much
// in all and how many. Moves 4 bytes per entry and part and 4 for the sum: 10 us for 600 x 600 at 1 TB/s of a second
// cache.
void sum_grams(GramParts parts, const std::int64_t* rows, std::int64_t r, std::int64_t n, std::int32_t floor,
               std::int32_t* out, std::int64_t* excess, std::int64_t* above, int threads);

struct ImageSize {
  std::int64_t channels, height, width;
  std::int64_t values() const { return channels * height * width; }
};

// Tiles of height x width pixels, the first at (top, left), down x across of them, `step` apart. They consist of cells
// of `cell` x `cell` pixels, the last ones smaller, in z-order, of which 2 x 2 are a unit; a tile's values are ordered
// [cell][channel][row][column].
struct TileGrid {
  std::int64_t top, left, down, across, height, width, step, cell;  // cell divides step

  // Where tile p begins, and its first byte in a channel of an image.
  std::int64_t row(std::int64_t p) const { return top + p / across * step; }
  std::int64_t column(std::int64_t p) const { return left + p % across * step; }
  std::int64_t corner(std::int64_t p, ImageSize size) const { return row(p) * size.width + column(p); }
};

constexpr float kCodeUnit = 12;  // codes per standard deviation of a whitened value

// Means of 2 x 2 pixels: (M, C, ceil(H/2), ceil(W/2)). One pass over bytes.
void halve(const std::uint8_t* images, std::int64_t M, ImageSize size, std::uint8_t* out, int threads);

// Q tiles of a grid of every image, numbered row by row, as they are: out[m][q] = tile chosen[m][q], in the order of
// cells.
void cut_tiles(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int64_t* chosen,
               std::int64_t Q, std::uint8_t* out, int threads);

// The sum of every channel of every image, (M, C).
void channel_sums(const std::uint8_t* images, std::int64_t M, ImageSize size, std::int64_t* out, int threads);

// Second moments about means, (d, d), of exact ones about zero: out_ij = exact_ij - with_sum[i][c(j)] -
// with_sum[j][c(i)] + with_mean[c(i)][c(j)], c the channel of a value; with_sum (d, C), with_mean (C, C).
void centre_moments(const std::int64_t* exact, const double* with_sum, const double* with_mean,
                    const std::int64_t* channel, std::int64_t d, std::int64_t C, double* out, int threads);

// Codes of the grid's tiles, of d values each. sums: of channel_sums; rows (d, d): nothing beyond the diagonal is read;
// scale (d); offset (down*across, d) and, per channel, channel (C, d) times the image's mean are taken away. Of `total`
// images these are `first` and on: a unit's values, n from `o` on in the image's order (tiles row by row), go to
// (total, n) numbers at values + total * o, what its cells keep to rows of kept (cells, total). d*d/2 multiply-adds of
// int16 per tile: 3.5 s on one core for 6000 images of 3 x 224 x 224 in tiles of 16 x 16 (32 per cycle, AVX-512 VNNI, 3
// GHz). Scratch: the weights once (1.2 MB for d = 768) and 150 KB per thread.
void whiten(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int64_t* sums,
            const std::int16_t* rows, const float* scale, const float* channel, const float* offset,
            std::int8_t* values, float* kept, std::int64_t total, std::int64_t first, int threads);

// out[m][p] = images[m]/255 . templates[p]. One pass over the bytes; 2*P flops per byte, so bound by memory for P up to
// about 4 and by arithmetic beyond.
void project(const std::uint8_t* images, std::int64_t M, std::int64_t D, const float* templates, std::int64_t P,
             float* out, int threads);

}  // namespace bre::cpu
