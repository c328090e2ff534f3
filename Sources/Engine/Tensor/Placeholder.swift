internal import COpenBLAS
internal import CPNG
internal import CKernels

