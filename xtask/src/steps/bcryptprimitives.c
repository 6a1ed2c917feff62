/* Stands in for a library of Windows that Debian 12's Wine lacks and every Rust program imports. */

#include <windows.h>

/* RtlGenRandom, by the name under which it is exported. */
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length) {
    return SystemFunction036(buffer, (ULONG)length);
}
