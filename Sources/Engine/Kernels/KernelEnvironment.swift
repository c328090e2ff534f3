#if canImport(Glibc)
    import Glibc
#endif

/// The processor-dependent part of a process.
public enum KernelEnvironment {
    /// The kernels that this process computes with, for example "avx512"; where OpenBLAS multiplies too, with its own
    /// kernels and version, for example "baseline Prescott-0.3.21". Two workers that say the same give the same bits.
    /// - Throws: `KernelError`.
    public static func kernels() throws -> String {
        let kernels = try KernelSet.chosen()
        return kernels == .baseline ? "\(kernels.rawValue) \(OpenBLAS.core)" : kernels.rawValue
    }

    /// Starts the program anew, in the same process, with OpenBLAS told which kernels to use, where it is used at all.
    ///
    /// OpenBLAS reads OPENBLAS_CORETYPE when it is loaded, before `main`. Left alone, it guesses, and differently for
    /// processors that could give the same bits. Call this first thing in `main`. Nothing happens if the user has set
    /// OPENBLAS_CORETYPE; should the start fail, the program goes on as it is.
    public static func reexecIfNeeded() {
        let guardVariable = "TILEFARM_REEXECUTED"
        guard getenv(guardVariable) == nil, getenv("OPENBLAS_CORETYPE") == nil, (try? KernelSet.chosen()) == .baseline
        else { return }
        setenv("OPENBLAS_CORETYPE", "Prescott", 1)
        setenv("OPENBLAS_NUM_THREADS", "1", 0)
        setenv("OMP_NUM_THREADS", "1", 0)
        setenv(guardVariable, "1", 1)
        execv("/proc/self/exe", CommandLine.unsafeArgv)
    }
}
