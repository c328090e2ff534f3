/// How a tensor's elements are stored in a file; the raw value is the name that safetensors gives it.
public enum ElementType: String, Sendable, CaseIterable {
    case float64 = "F64", float32 = "F32", float16 = "F16", bfloat16 = "BF16"
    case float8E4M3 = "F8_E4M3", float8E5M2 = "F8_E5M2"
    case int64 = "I64", int32 = "I32", int16 = "I16", int8 = "I8"
    case uint64 = "U64", uint32 = "U32", uint16 = "U16", uint8 = "U8", bool = "BOOL"

    /// Size of one element in bytes.
    public var size: Int {
        switch self {
        case .float64, .int64, .uint64: 8
        case .float32, .int32, .uint32: 4
        case .float16, .bfloat16, .int16, .uint16: 2
        case .float8E4M3, .float8E5M2, .int8, .uint8, .bool: 1
        }
    }
}

/// IEEE half precision to single, without a branch and without the F16C instructions that a portable binary may not
/// assume: the exponent is re-biased by a multiplication, which is exact and normalises subnormals too.
@inline(__always)
package func float(fromHalf bits: UInt16) -> Float {
    let magnitude = UInt32(bits & 0x7fff) << 13
    let scaled = (Float(bitPattern: magnitude) * 0x1p112).bitPattern
    let special: UInt32 = magnitude >= 0x0f80_0000 ? 0x7f80_0000 : 0  // infinity and NaN keep an exponent of all ones
    return Float(bitPattern: UInt32(bits & 0x8000) << 16 | scaled | special)
}

/// The upper half of a single is a bfloat16.
@inline(__always)
package func float(fromBFloat16 bits: UInt16) -> Float {
    Float(bitPattern: UInt32(bits) << 16)
}
