/* Fixed-width names, and the few macros that every file needs. libc only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

/* Addresses by what they name. A gva is what the guest's instructions compute
 * (linear), a gpa what its page tables yield, a hva a pointer in this process. */
typedef u64 gpa_t;
typedef u64 gva_t;
typedef u64 iova_t;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
#define BIT(n)        (1ull << (n))
/* clang-format off */
#define ALIGN_UP(x, a)   (((x) + ((a) - 1)) & ~((typeof(x))(a) - 1))
#define ALIGN_DOWN(x, a) ((x) & ~((typeof(x))(a) - 1))

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
/* clang-format on */

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define packed_struct     __attribute__((packed))
#define printf_like(f, a) __attribute__((format(printf, f, a)))

#define KiB (1ull << 10)
#define MiB (1ull << 20)
#define GiB (1ull << 30)
