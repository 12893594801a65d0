/* The address sanitizer's calls, in builds with it (ADDRESS_SANITIZER) only. */
#pragma once

/* This thread's, NULL: nothing. Called by code that the compiler has put before a call of a function that does not return. */
extern _Thread_local void (*asan_before)(void);
