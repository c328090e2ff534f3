import Testing
import Coordinator
@Test func imports() { #expect(answer() == 42) }
