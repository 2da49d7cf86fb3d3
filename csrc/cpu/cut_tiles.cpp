#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"
#include "tiles.h"

namespace bre::cpu {

void cut_tiles(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, std::uint8_t* out,
               int threads) {
  const Isa isa = current_isa();
  const Cells cells(grid, size.channels);
  const std::int64_t d = cells.size(), P = grid.down * grid.across;
  parallel_for(M, threads, [&](std::int64_t m) {
    for (std::int64_t p = 0; p < P; ++p) {
      on_isa(isa, Gather{}, images + m * size.values() + grid.corner(p, size), size, &cells, out + (m * P + p) * d);
    }
  });
}

}  // namespace bre::cpu
