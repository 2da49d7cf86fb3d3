// The CUDA kernels: raw pointers, sizes and a stream in, nothing else. No torch headers: one build serves every torch.
//
// The twin of cpu/bre_cpu.h: the same letters, the same arrays, now in device memory. A launcher only checks what it
// could not survive, picks a kernel and puts it on the stream: it allocates nothing and waits for nothing, so a CUDA
// graph can capture it. What a kernel needs beside its arguments ("workspace") the caller brings. A failed call throws
// std::runtime_error with CUDA's words, the file and the line.
//
// Times in comments are napkin predictions for an H100 (3 TB/s, 132 SMs at 1.7 GHz); nobody measured them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../cpu/bre_cpu.h"

namespace bre::cuda {

using cpu::Dtype;
using cpu::GramParts;
using cpu::ImageShape;
using cpu::ImageSize;
using cpu::Layout;
using cpu::TileGrid;
using cpu::UpdateStep;

// Makes `device` the calling thread's current one for as long as it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0, device_;
};

int device_count();          // throws when there is no driver, or one older than this runtime
int capability(int device);  // 10 * major + minor

// One launch. Reads 1 byte and writes 4 (16-bit numbers: 2) per pixel and row; of the pattern, 4 per 8 rows, from L2.
// T = 10, N = 100 of 3 x 32 x 32: 3 + 12 MB, 5 us.
void apply_pattern(const std::uint8_t* images, ImageShape shape, const std::int64_t* index, const std::int8_t* sign,
                   std::int64_t T, std::int64_t N, const float* pattern, const float* mean, const float* std,
                   Layout layout, Dtype dtype, void* out, cudaStream_t stream);

// One launch. Reads and writes each logit once while a row fits the registers of a block (K <= 22 528); longer rows
// are read three times, mostly from L2. 1000 rows of K = 1000 in fp32: 8 MB, 3 us.
void loss_head(const void* logits, Dtype dtype, const std::int64_t* target, const std::int8_t* sign,
               const float* weight, std::int64_t T, std::int64_t N, std::int64_t K, float* loss, void* grad,
               bool* success, cudaStream_t stream);

// Two launches: gradients of the patterns into `gradient` (T, D; workspace), then one block per pattern descends.
// The first reads 4 (16-bit: 2) bytes of gradient and 1 of image per pixel and row; T = 10, N = 100 of 3 x 32 x 32:
// 15 MB, 5 us. The second moves 28 bytes per pixel of a pattern, most of them in L2.
void update_pattern(const void* grad, Dtype dtype, Layout layout, const std::uint8_t* images, ImageShape shape,
                    const std::int64_t* index, const std::int8_t* sign, std::int64_t T, std::int64_t N, float* pattern,
                    float* momentum, const bool* active, const float* std, UpdateStep step, float* gradient,
                    float* norms, cudaStream_t stream);

// Two launches. `order` (M) lists the images by label, those of class k at offsets[k] .. offsets[k+1] (K+1; workspace).
void moments(const std::uint8_t* images, std::int64_t M, std::int64_t D, const std::int64_t* order,
             const std::int64_t* offsets, std::int64_t K, std::int64_t* count, std::int64_t* sum, std::int64_t* second,
             cudaStream_t stream);

// The second of them alone, for images whose sums nobody wants.
void add_second_moment(const std::uint8_t* images, std::int64_t M, std::int64_t D, std::int64_t* second,
                       cudaStream_t stream);

// One launch. 4096 rows of 3072: 2.6e10 multiply-adds (one triangle), 0.5 ms at 57e12/s (dp4a).
void gram(const std::int8_t* codes, std::int64_t n, std::int64_t D, std::int32_t* out, cudaStream_t stream);

// One launch, likewise, for (r, D) and (n, D): both triangles where they are the same.
void cross_gram(const std::int8_t* left, std::int64_t r, const std::int8_t* right, std::int64_t n, std::int64_t D,
                std::int32_t* out, cudaStream_t stream);

// One launch, a block per row. Moves 4 bytes per entry and part and 4 for the sum: four parts of 600 x 600, 7 MB, 2 us.
void sum_grams(GramParts parts, const std::int64_t* rows, std::int64_t r, std::int64_t n, std::int32_t floor,
               std::int32_t* out, std::int64_t* excess, std::int64_t* above, cudaStream_t stream);

// One launch each, one pass over the bytes.
void halve(const std::uint8_t* images, std::int64_t M, ImageSize size, std::uint8_t* out, cudaStream_t stream);
void channel_sums(const std::uint8_t* images, std::int64_t M, ImageSize size, std::int64_t* out, cudaStream_t stream);

// One launch. places (d): where each value of a tile lies in its image, from the tile's corner on.
void cut_tiles(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int64_t* chosen,
               std::int64_t Q, const std::int32_t* places, std::uint8_t* out, cudaStream_t stream);

// One launch per grid. 2 bytes of weights against one of a tile at a time (dp2a), up to the diagonal: 6000 images of
// 3 x 224 x 224 in tiles of 16 x 16 are 3.5e11 multiply-adds, 12 ms at 29e12/s. Bytes: 1 read and 1 written per value,
// the weights and the tiles again from L2.
void whiten(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int32_t* places,
            const std::int64_t* sums, const std::int16_t* rows, const float* scale, const float* channel,
            const float* offset, std::int8_t* values, float* kept, std::int64_t total, std::int64_t first,
            cudaStream_t stream);

// One launch per 8 templates, fewer by powers of two at the end, each reading the bytes once. 50 000 CIFAR images:
// 154 MB, 51 us.
void project(const std::uint8_t* images, std::int64_t M, std::int64_t D, const float* templates, std::int64_t P,
             float* out, cudaStream_t stream);

}  // namespace bre::cuda
