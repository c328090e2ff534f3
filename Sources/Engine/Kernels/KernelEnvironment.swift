#if canImport(Glibc)
import Glibc
#endif

/// The processor-dependent part of a process.
public enum KernelEnvironment {
    /// What this process computes with, for example "avx512 SkylakeX-0.3.21": its own kernels, and those of OpenBLAS. Two workers that say the same
    /// give the same bits.
    /// - Throws: `KernelError`.
    public static func kernels() throws -> String { "\(try KernelSet.chosen().rawValue) \(OpenBLAS.core)" }

    /// Starts the program anew, in the same process, with OpenBLAS told which processor this is.
    ///
    /// OpenBLAS reads OPENBLAS_CORETYPE when it is loaded, before `main`. Left alone, it guesses low for processors younger than itself, and
    /// differently for processors that could give the same bits. Call this first thing in `main`. Nothing happens if the user has set
    /// OPENBLAS_CORETYPE; should the start fail, the program goes on as it is.
    public static func reexecIfNeeded() {
        let guardVariable = "TILEFARM_REEXECUTED"
        guard getenv(guardVariable) == nil, getenv("OPENBLAS_CORETYPE") == nil else { return }
        let core: String
        switch (try? KernelSet.chosen()) ?? .baseline {
        case .avx512, .avx512bf16: core = "SkylakeX"
        case .avx2: core = "Haswell"
        case .baseline: core = "Prescott"
        }
        setenv("OPENBLAS_CORETYPE", core, 1)
        setenv("OPENBLAS_NUM_THREADS", "1", 0)
        setenv("OMP_NUM_THREADS", "1", 0)
        setenv(guardVariable, "1", 1)
        execv("/proc/self/exe", CommandLine.unsafeArgv)
    }
}
