import Testing
import Worker
@Test func imports() { }
