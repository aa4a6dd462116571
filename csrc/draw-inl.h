// Draws; part of kernels-inl.h.

namespace {

using segue::kDrawBlock;

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011): four numbers of
// each counter, which is the place in the counting, whatever was drawn before.
void draw_blocks(std::uint64_t key, std::uint32_t threshold, int64_t from, int64_t to, std::uint8_t* keep) {
    constexpr int kCounters = kDrawBlock / 4;  // beside each other, so that the compiler takes them in vectors
    for (int64_t block = from; block < to; ++block, keep += kDrawBlock) {
        std::uint32_t c[4][kCounters];
        for (int j = 0; j < kCounters; ++j) {
            const std::uint64_t counter = static_cast<std::uint64_t>(block) * kCounters + j;
            c[0][j] = static_cast<std::uint32_t>(counter), c[1][j] = static_cast<std::uint32_t>(counter >> 32);
            c[2][j] = c[3][j] = 0;
        }
        std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
        for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
            for (int j = 0; j < kCounters; ++j) {
                const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0][j], b = std::uint64_t{0xCD9E8D57u} * c[2][j];
                c[0][j] = static_cast<std::uint32_t>(b >> 32) ^ c[1][j] ^ k0;
                c[1][j] = static_cast<std::uint32_t>(b);
                c[2][j] = static_cast<std::uint32_t>(a >> 32) ^ c[3][j] ^ k1;
                c[3][j] = static_cast<std::uint32_t>(a);
            }
        for (int word = 0; word < 4; ++word)
            for (int j = 0; j < kCounters; ++j) keep[word * kCounters + j] = c[word][j] < threshold;
    }
}

}  // namespace
