import Foundation

/// Unicode's Normalization Form C (UAX #15). Foundation's own conversion leaves some Hangul uncomposed and some marks
/// unsorted, and takes quadratic time on rows of marks; it is asked here for no more than one character's decomposition
/// and one composition.
package enum NormalizationFormC {
    package static func normalize(_ text: some Sequence<Unicode.Scalar>) -> [Unicode.Scalar] {
        var decomposed: [(scalar: Unicode.Scalar, combiningClass: UInt8)] = []
        for scalar in text {
            if scalar.isASCII {
                decomposed.append((scalar, 0))
            } else {
                for part in decomposition(scalar) {
                    decomposed.append((part, part.properties.canonicalCombiningClass.rawValue))
                }
            }
        }
        sort(&decomposed)
        return composed(decomposed)
    }

    /// Puts each run of marks in the order of their combining classes; marks of one class keep theirs.
    private static func sort(_ scalars: inout [(scalar: Unicode.Scalar, combiningClass: UInt8)]) {
        var i = 0
        while i < scalars.count {
            let start = i
            while i < scalars.count, scalars[i].combiningClass != 0 { i += 1 }
            if i - start > 1 {
                let sorted = scalars[start..<i].enumerated().sorted {
                    ($0.element.combiningClass, $0.offset) < ($1.element.combiningClass, $1.offset)
                }
                scalars.replaceSubrange(start..<i, with: sorted.map(\.element))
            }
            i += 1
        }
    }

    private static func composed(_ scalars: [(scalar: Unicode.Scalar, combiningClass: UInt8)]) -> [Unicode.Scalar] {
        var result: [Unicode.Scalar] = []
        var starter: Int?  // the last starter's place in `result`
        var blocking: UInt8 = 0  // the class of what stands last after it
        for (scalar, combiningClass) in scalars {
            let isAdjacent = starter == result.count - 1
            if let place = starter, isAdjacent || (blocking < combiningClass && blocking != 0), !scalar.isASCII,
                let composite = composite(result[place], scalar)
            {
                result[place] = composite
                continue
            }
            if combiningClass == 0 { starter = result.count }
            blocking = combiningClass
            result.append(scalar)
        }
        return result
    }

    // Section 3.12 of the Unicode Standard: Hangul syllables are arithmetic.
    private static let syllables: Range<UInt32> = 0xac00..<0xd7a4
    private static let (leading, vowels, trailing): (UInt32, UInt32, UInt32) = (0x1100, 0x1161, 0x11a7)
    private static let (vowelCount, trailingCount): (UInt32, UInt32) = (21, 28)

    private static func decomposition(_ scalar: Unicode.Scalar) -> [Unicode.Scalar] {
        Array(String(Character(scalar)).decomposedStringWithCanonicalMapping.unicodeScalars)
    }

    /// The primary composite of two characters.
    private static func composite(_ a: Unicode.Scalar, _ b: Unicode.Scalar) -> Unicode.Scalar? {
        if syllables.contains(a.value), (a.value - syllables.lowerBound) % trailingCount == 0, b.value > trailing,
            b.value < trailing + trailingCount
        {
            return Unicode.Scalar(a.value + b.value - trailing)
        }
        if a.value >= leading, a.value < leading + 19, b.value >= vowels, b.value < vowels + vowelCount {
            return Unicode.Scalar(
                syllables.lowerBound + ((a.value - leading) * vowelCount + b.value - vowels) * trailingCount)
        }
        let parts = decomposition(a) + [b]
        let whole = String(String.UnicodeScalarView(parts)).precomposedStringWithCanonicalMapping.unicodeScalars
        // Foundation takes some characters above U+FFFF for others, so the way back is gone too.
        guard whole.count == 1, let composite = whole.first, decomposition(composite) == parts else { return nil }
        return composite
    }
}
