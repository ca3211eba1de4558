/*!
To be written.
*/
fn main() {
    println!("stockade-demo: nothing to show yet");
}
